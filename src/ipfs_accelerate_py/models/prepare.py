"""Prepared models: made once, found again, safe to make from several processes at the same time.

CACHE/models/KEY     weights of a synthetic model, as transformers saves them
CACHE/graphs/KEY     ONNX files of a model at a precision, for every batch size and length
CACHE/prepared/KEY   the folder of ``prepared.py`` for one workload; its large files are links to the two above
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UnavailableError
from ..spec import Workload, identity
from .base import ExportGraph, ModelClass
from .prepared import FORMAT, Graph, Manifest, load_tensors
from .registry import ModelReference, model_classes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RECIPE = 2  # raise when what is made from the same workload changes, so that older caches are left alone
# Largest max|x - r| / max|r| that an exported graph may have against its module on the CPU: far above what rounding gives
# (tests/models print it), far below what a wrong graph gives.
ERROR_LIMITS = {"float32": 1e-3, "float16": 5e-2, "int8": 0.5}
VERSIONS = ("torch", "transformers", "onnx", "onnxruntime")


def prepare(workload: Workload, reference: ModelReference, cache_folder: Path, seed: int = 0) -> Path:
    """The prepared folder of ``workload``, made where it is not there yet. ``seed`` chooses the example inputs.

    Raises UserError for weights that cannot be read or fetched, UnavailableError where torch or onnx is not installed.
    """
    # The path is in it because torch reads trained weights from where they are: a folder that was moved is prepared anew.
    path = str(reference.path) if reference.path else None
    key = identity({"workload": asdict(workload), "path": path, "seed": seed, "format": FORMAT, "recipe": RECIPE})
    return _once(cache_folder / "prepared" / key, partial(_build, workload, reference, cache_folder, seed))


def load_model(folder: Path) -> PreTrainedModel:
    """The transformers model of a prepared folder: float32, CPU, eval mode."""
    from .loading import load_folder

    manifest = Manifest.read(folder)
    return load_folder(model_classes()[manifest.model_class], folder / manifest.facts["torch_folder"])


def modules(folder: Path) -> dict[str, ExportGraph]:
    """The torch modules of a prepared folder's graphs, with its own inputs as examples. Weights are shared between them."""
    manifest = Manifest.read(folder)
    model_class = model_classes()[manifest.model_class]
    return model_class.graphs(load_model(folder), load_tensors(folder / "inputs.npz"), manifest.facts["new_tokens"])


def _build(workload: Workload, reference: ModelReference, cache_folder: Path, seed: int, folder: Path) -> None:
    _require("torch", "transformers", "onnx", "onnxruntime", "onnxscript")
    from .loading import load_folder
    from .reference import reference_outputs

    model_class = model_classes()[workload.model_class]
    weights = _weights_folder(model_class, reference, cache_folder)
    model = load_folder(model_class, weights)
    inputs = model_class.inputs(model.config, workload.batch_size, workload.sequence_length, seed)
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    graphs = model_class.graphs(model, inputs, workload.new_tokens)
    np.savez(folder / "reference.npz", **reference_outputs(graphs, workload.new_tokens))  # type: ignore[arg-type]

    made = _graphs_folder(model_class, model, reference, workload.precision, cache_folder)
    description = json.loads((made / "graphs.json").read_text())
    entries = {name: Graph.from_dict(entry) for name, entry in description["graphs"].items()}
    for entry in entries.values():
        for name in entry.files:
            _link(made / name, folder / name)
    torch_folder = str(weights)
    if reference.weights == "synthetic":
        torch_folder = "torch"
        (folder / "torch").mkdir()
        for file in weights.iterdir():
            _link(file, folder / "torch" / file.name)

    generation = model_class.generation(model.config)
    if generation is not None and workload.precision == "float16":
        generation = replace(generation, cache_dtype="float16")
    dimensions = {"batch": workload.batch_size}
    if workload.sequence_length is not None and generation is None:
        dimensions["sequence"] = workload.sequence_length
    size = model_class.sizes.get(workload.size)
    Manifest(
        model_class=workload.model_class,
        origin=workload.origin,
        precision=workload.precision,
        dimensions=dimensions,
        graphs=entries,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights_bytes=sum(entry.bytes for entry in entries.values()),
        generation=generation,
        facts={
            "torch_folder": torch_folder,
            "new_tokens": workload.new_tokens,
            "seed": seed,
            "shape_of": size.hub_id if size else None,
            "export_error": description["errors"],
            "versions": description["versions"],
        },
    ).save(folder)


def _weights_folder(model_class: ModelClass, reference: ModelReference, cache_folder: Path) -> Path:
    """Where the model's config.json and safetensors are: made, fetched or given."""
    if reference.origin.startswith("synthetic:"):
        arguments = model_class.sizes[reference.size].config
        seed = int(reference.origin.removeprefix("synthetic:"))
        key = identity({"class": model_class.name, "config": dict(arguments), "seed": seed, "recipe": RECIPE})

        def make(folder: Path) -> None:
            from .loading import without_progress
            from .synthetic import synthetic_model

            with without_progress():
                synthetic_model(model_class, arguments, seed).save_pretrained(folder)

        return _once(cache_folder / "models" / key, make)
    if reference.origin.startswith("hub:"):
        from .hub import hub_folder

        return hub_folder(reference.origin.removeprefix("hub:"))
    assert reference.path is not None
    return reference.path


def _graphs_folder(
    model_class: ModelClass, model: PreTrainedModel, reference: ModelReference, precision: str, cache_folder: Path
) -> Path:
    """ONNX files and ``graphs.json``: graphs as in the manifest, errors against the modules, versions of what made them."""
    key = identity({"model": asdict(reference) | {"path": None}, "precision": precision, "recipe": RECIPE})
    folder = cache_folder / "graphs" / key
    if (folder / "graphs.json").is_file():
        return folder
    float32 = folder
    if precision != "float32":
        float32 = _graphs_folder(model_class, model, reference, "float32", cache_folder)

    def make(target: Path) -> None:
        from .export import convert, describe, error, export_float32

        attention = model.config._attn_implementation
        model.set_attn_implementation("eager")  # plain products and a Softmax, which every engine has
        examples = model_class.inputs(model.config, 2, _short(model_class), 1)
        graphs = model_class.graphs(model, examples, None)
        errors = {}
        for name, graph in graphs.items():
            path = target / f"{name}.onnx"
            if precision == "float32":
                export_float32(graph, path)
            else:
                convert(float32 / path.name, path, precision)
            errors[name] = error(path, graph)
            if not errors[name] <= ERROR_LIMITS[precision]:  # also where it is not a number
                raise ArithmeticError(
                    f"The {precision} graph '{name}' of {model_class.name} {reference.size} is off by {errors[name]:.2g} of the "
                    f"largest output, more than {ERROR_LIMITS[precision]}."
                )
        model.set_attn_implementation(attention)
        content = {
            "graphs": {name: asdict(describe(target / f"{name}.onnx")) for name in graphs},
            "errors": errors,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        }
        (target / "graphs.json").write_text(json.dumps(content, indent=1))

    return _once(folder, make)


def _short(model_class: ModelClass) -> int | None:
    """An odd length, so that a graph which fixed the traced one fails its check."""
    return None if model_class.default_sequence_length is None else 11


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``make`` if it is not there. Another process that makes it at the same time may win; both get a whole one."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(building)
        building.chmod(0o755)  # mkdtemp's folders are for their owner only
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"Preparing a model needs {', '.join(missing)}.", "Run: pip install 'ipfs_accelerate_py[torch,onnx]'"
        )
