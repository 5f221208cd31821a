"""Trained models from a folder, with the checks that turn a cryptic failure into one sentence.

A folder is a transformers one: ``config.json`` and safetensors weights (``model.safetensors``, or shards with an index). Pickled
weights are refused, because loading one can run its author's code; so is code in a model's repository.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .base import ModelClass

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# What transformers and torch raise for a configuration: a name that is not known, a size below 0, padding outside the vocabulary ...
CONFIG_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError, RuntimeError)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` as a dictionary; UserError where there is none or it is not JSON."""
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}'.")
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"'{folder}' is not a model: it has no config.json. Name a folder saved by transformers' save_pretrained."
        )
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"'{path}' does not say what model it is: it has no model_type.")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model's folder; UserError where it has none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as broken:
        raise UserError(f"'{path}' is not valid JSON: {broken}.") from broken
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds no names with values, as a model's settings do.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, each whole; UserError where one is missing or truncated."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"'{index}' does not say which file each tensor is in.")
        files = [folder / name for name in sorted(set(shards.values()))]
        if outside := next((file for file in files if file.parent != folder), None):
            raise UserError(f"'{index}' names '{outside}', which is not in the model's folder.")
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise UserError(
                f"'{folder}' has its weights only as a pickle ({pickles[0]}), which can run code when it is loaded. "
                "Convert it to safetensors with transformers' save_pretrained and name that folder."
            )
        raise UserError(f"'{folder}' has no weights: neither model.safetensors nor model.safetensors.index.json is there.")
    for file in files:
        if not file.is_file():
            raise UserError(f"'{folder}' is incomplete: its index names {file.name}, which is not there.")
        _check_whole(file)
    return files


def _check_whole(file: Path) -> None:
    """Compare the file's size with its header (https://huggingface.co/docs/safetensors: u64 header length, JSON header, data)."""
    actual = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or 8 + length > actual:
            needed = "at least 8" if length is None else f"at least {8 + length:,}"
            raise UserError(
                f"'{file}' is truncated or not safetensors: its header needs {needed} bytes, the file has {actual:,}."
            )
        try:
            header = json.loads(stream.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as broken:
            raise UserError(f"'{file}' is not a safetensors file: its header is not JSON.") from broken
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (AttributeError, LookupError, TypeError, ValueError) as broken:
        raise UserError(f"'{file}' is not a safetensors file: its header does not say where its tensors are.") from broken
    expected = 8 + length + max(ends, default=0)
    if actual != expected:
        state = "truncated" if actual < expected else "too long"
        raise UserError(
            f"'{file}' is {state}: its header promises {expected:,} bytes, the file has {actual:,}. Fetch it again."
        )


def load_folder(model_class: ModelClass, folder: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model of a folder at ``dtype`` (float32), on the CPU, in eval mode. UserError where config and weights do not make one."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig

    if read_config(folder).get("quantization_config") is not None:
        raise UserError(f"The weights in '{folder}' are quantized already; name a folder or hub model of the float ones.")
    weight_files(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # A config.json can name a kernel of the hub here, whose code transformers would fetch and run.
        config._attn_implementation = None
        with torch.device("meta"):
            kind = type(model_class.build(config))
    except (*CONFIG_ERRORS, StrictDataclassError) as broken:
        raise UserError(
            f"'{folder / 'config.json'}' does not describe a {model_class.name} model: {one_line(broken)}"
        ) from broken
    try:
        with without_progress():
            loaded: Any = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=dtype or torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are listed, and refused below with their names
            )
    except (SafetensorError, ArithmeticError) as broken:  # the second, of a size of 0 that only the initialisation meets
        raise UserError(f"The model in '{folder}' cannot be loaded: {one_line(broken)}") from broken
    model, info = loaded
    if info["mismatched_keys"]:
        name, stored, built = sorted(info["mismatched_keys"])[0]
        raise UserError(
            f"The weights in '{folder}' do not fit its config.json: tensor '{name}' is {list(stored)} in the weights "
            f"and {list(built)} by the config."
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(model_class.unused_weights))
    if missing:
        raise UserError(
            f"The weights in '{folder}' lack {len(missing)} tensors of a {model_class.name} model, first '{missing[0]}'."
        )
    return model.eval()


def one_line(error: Exception) -> str:
    """A library's message as the end of a sentence of ours."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".") + "."


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Keep transformers' own progress bars and load reports off the terminal; what is wrong is said by our errors."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
