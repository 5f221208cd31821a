"""References that are kept: the float32 outputs of a model for each item, whatever batch and precision are compared with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..spec import Workload, identity
from .base import ModelClass
from .keeping import RECIPE, model_key, once
from .prepared import load_tensors
from .reference import first_rows, forward_reference, reference_outputs, training_reference
from .registry import ModelReference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "reference.npz"


def reference(
    model_class: ModelClass,
    model: PreTrainedModel,
    workload: Workload,
    source: ModelReference,
    inputs: Mapping[str, np.ndarray],
    rows: int | None,
    cache_folder: Path,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Outputs of the first ``rows`` items (None: of all) of ``inputs``, each item's computed where the cache does not have them.

    An item's outputs do not depend on the batch that it is in, so those of the largest batch hold those of all others. A training
    step's loss does, so it is kept for the whole. ``model`` is float32 and on ``device``; one other than ``cpu`` has ``forward_reference``.
    """
    given = first_rows(inputs, rows)
    partial_step = workload.mode == "training" and rows is not None  # its outputs have names of their own

    def folder(arrays: Mapping[str, np.ndarray]) -> Path:
        """Where the outputs for these inputs are kept."""
        key = {
            "model": model_key(source),
            "mode": workload.mode,
            "new_tokens": workload.new_tokens,
            "inputs": _digest(arrays),
            "partial_step": partial_step,
            "recipe": RECIPE,
            **({} if device == "cpu" else {"device": device}),
        }
        return cache_folder / "references" / identity(key)

    if workload.mode == "training":

        def make(target: Path) -> None:
            _save(training_reference(model_class, model, given, of_first_rows=partial_step), target)

        return load_tensors(once(folder(given), make) / FILE)

    count = len(next(iter(given.values())))
    folders = [folder({name: array[row : row + 1] for name, array in given.items()}) for row in range(count)]
    missing = [row for row, place in enumerate(folders) if not place.is_dir()]
    if missing:
        arrays = {name: array[missing] for name, array in given.items()}
        if device == "cpu":
            outputs = reference_outputs(model_class.graphs(model, arrays, workload.new_tokens), workload.new_tokens)
        else:
            assert workload.new_tokens is not None
            outputs = forward_reference(model_class, model, arrays, workload.new_tokens)
        for place, row in enumerate(missing):
            once(folders[row], partial(_save, {name: array[place : place + 1] for name, array in outputs.items()}))
    kept = [load_tensors(place / FILE) for place in folders]
    return {name: np.concatenate([outputs[name] for outputs in kept]) for name in kept[0]}


def _digest(inputs: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(outputs: Mapping[str, np.ndarray], folder: Path) -> None:
    np.savez(folder / FILE, **outputs)  # type: ignore[arg-type]
