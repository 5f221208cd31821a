"""Prepared models: made once, found again, safe to make from several processes at the same time.

CACHE/graphs/KEY       ONNX files of a model at a precision, for every batch size and length
CACHE/references/KEY   outputs of the float32 reference for a model and one item's inputs, for every precision and batch size
CACHE/prepared/KEY     the folder of ``prepared.py`` for one workload; its graphs are links to the above

Synthetic weights are in none of them: they are made from their seed wherever torch runs them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnavailableError
from ..spec import Workload, identity
from .base import ExportGraph, ModelClass
from .keeping import RECIPE, link, model_key, once, synthetic_seed, weights_folder
from .prepared import FORMAT, Graph, Manifest, TensorInfo, load_tensors
from .registry import ModelReference, model_classes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Largest max|x - r| / max|r| that an exported graph may have against its module on the CPU: far above what rounding gives
# (tests/models print it), far below what a wrong graph gives.
ERROR_LIMITS = {"float32": 1e-3, "float16": 5e-2, "int8": 0.5, "int4": 0.9}
VERSIONS = ("torch", "transformers", "onnx", "onnxruntime")


def prepare(
    workload: Workload,
    reference: ModelReference,
    cache_folder: Path,
    seed: int = 0,
    exported: bool = True,
    tell: Callable[[str], None] = lambda step: None,
    device: str = "cpu",
) -> Path:
    """The prepared folder of ``workload``, made where it is not there yet. ``seed`` chooses the example inputs.

    With ``exported`` False there are no ONNX files, and torch alone can run it; nothing else runs training and bfloat16, so these
    are never exported. ``tell`` is called with each step that takes long. ``device`` is torch's name of the one that computes the
    reference: another than the CPU only for the inference of a decoder that is not exported.
    Raises UserError for weights that cannot be read or fetched, UnavailableError where torch or onnx is not installed.
    """
    place = prepared_path(workload, reference, cache_folder, seed, exported, device)
    exported = exported and exportable(workload)
    return once(place, partial(_build, workload, reference, cache_folder, seed, exported, device, tell))


def exportable(workload: Workload) -> bool:
    """Whether there are ONNX files of such a workload."""
    return workload.mode == "inference" and workload.precision in ERROR_LIMITS


def prepared_path(
    workload: Workload, reference: ModelReference, cache_folder: Path, seed: int = 0, exported: bool = True, device: str = "cpu"
) -> Path:
    """Where ``prepare`` makes the folder, or has made it: a folder that is there is whole. Imports nothing heavy."""
    # The path is in it because torch reads trained weights from where they are: a folder that was moved is prepared anew.
    path = str(reference.path) if reference.path else None
    given = {
        "workload": asdict(workload),
        "model": model_key(reference),
        "path": path,
        "seed": seed,
        "exported": exported and exportable(workload),
        **({} if device == "cpu" else {"reference_device": device}),
    }
    return cache_folder / "prepared" / identity({**given, "format": FORMAT, "recipe": RECIPE})


def exported(
    reference: ModelReference, precision: str, cache_folder: Path, tell: Callable[[str], None] = lambda step: None
) -> tuple[Path, dict[str, Graph]]:
    """The folder of a model's ONNX files, and its graphs: what an engine needs that gets its inputs from elsewhere.

    Raises as ``prepare`` does.
    """
    folder = _graphs_path(reference, precision, cache_folder)
    if not (folder / "graphs.json").is_file():
        _require("torch", "transformers", "onnx", "onnxruntime", "onnxscript")
        tell("ONNX export")
        model_class = model_classes()[reference.model_class]
        folder = _graphs_folder(model_class, _float32_model(reference), reference, precision, cache_folder)
    graphs = json.loads((folder / "graphs.json").read_text())["graphs"]
    return folder, {name: Graph.from_dict(entry) for name, entry in graphs.items()}


def processing(reference: ModelReference) -> tuple[PretrainedConfig, Path | None]:
    """The model's configuration, and the folder of its processing files (None for synthetic weights); weights are not loaded."""
    _require("transformers")
    model_class = model_classes()[reference.model_class]
    if reference.weights == "synthetic":
        return model_class.config(model_class.sizes[reference.size].config), None
    from transformers import AutoConfig

    folder = weights_folder(reference)
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False), folder


def load_model(folder: Path, device: str = "cpu", precision: str = "float32") -> PreTrainedModel:
    """The transformers model of a prepared folder on a torch device, in eval mode, its weights at ``precision`` (a torch dtype)."""
    import torch

    manifest = Manifest.read(folder)
    model_class = model_classes()[manifest.model_class]
    dtype = getattr(torch, precision)
    if manifest.facts["torch_folder"] is None:
        from .synthetic import synthetic_model

        arguments = model_class.sizes[manifest.facts["size"]].config
        return synthetic_model(model_class, arguments, synthetic_seed(manifest.origin), device, dtype)
    from .loading import load_folder

    model: Any = load_folder(model_class, Path(manifest.facts["torch_folder"]), dtype)  # transformers' own ``to`` is mistyped
    return model.to(device)


def modules(folder: Path, device: str = "cpu", precision: str = "float32", rows: int | None = None) -> dict[str, ExportGraph]:
    """The torch modules of a prepared folder's graphs, with its own inputs (of the first ``rows`` items) as examples. Weights are
    shared between them."""
    manifest = Manifest.read(folder)
    inputs = {name: array[:rows] for name, array in load_tensors(folder / "inputs.npz").items()}
    model_class = model_classes()[manifest.model_class]
    return model_class.graphs(load_model(folder, device, precision), inputs, manifest.facts["new_tokens"])


def _build(
    workload: Workload,
    reference: ModelReference,
    cache_folder: Path,
    seed: int,
    exported: bool,
    device: str,
    tell: Callable[[str], None],
    folder: Path,
) -> None:
    _require("torch", "transformers", *(("onnx", "onnxruntime", "onnxscript") if exported else ()))
    from . import references
    from .reference import reference_rows

    model_class = model_classes()[workload.model_class]
    model = _float32_model(reference, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    inputs = model_class.inputs(model.config, workload.batch_size, workload.sequence_length, seed)
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    rows, seconds = reference_rows(inputs, workload.new_tokens, parameters, workload.mode)
    where = f" (about {seconds:.0f} s)" if device == "cpu" else f" on {device}"
    tell(f"float32 reference of {rows or workload.batch_size} of {workload.batch_size} items{where}")
    outputs = references.reference(model_class, model, workload, reference, inputs, rows, cache_folder, device)
    np.savez(folder / "reference.npz", **outputs)  # type: ignore[arg-type]

    entries, made = {}, {}
    if exported:
        tell("ONNX export")
        graphs = _graphs_folder(model_class, model, reference, workload.precision, cache_folder)
        made = json.loads((graphs / "graphs.json").read_text())
        entries = {name: Graph.from_dict(entry) for name, entry in made["graphs"].items()}
        for name in (name for entry in entries.values() for name in entry.files):
            link(graphs / name, folder / name)
    elif workload.mode == "inference":
        first = {name: array[:1] for name, array in inputs.items()}
        entries = {name: _unexported(graph) for name, graph in model_class.graphs(model, first, workload.new_tokens).items()}

    generation = model_class.generation(model.config) if workload.mode == "inference" else None
    if generation is not None and workload.precision == "float16":
        generation = replace(generation, cache_dtype="float16")
    dimensions = {"batch": workload.batch_size}
    if workload.sequence_length is not None:
        if generation is None:
            dimensions["sequence"] = workload.sequence_length
        elif generation.start_token_ids is not None:  # an encoder's text
            dimensions["source"] = workload.sequence_length
    size = model_class.sizes.get(workload.size)
    width = 2 if workload.precision in ("float16", "bfloat16") and workload.mode == "inference" else 4
    Manifest(
        model_class=workload.model_class,
        origin=workload.origin,
        precision=workload.precision,
        dimensions=dimensions,
        graphs=entries,
        parameters=parameters,
        weights_bytes=sum(entry.bytes for entry in entries.values()) if exported else width * parameters,
        generation=generation,
        facts={
            "torch_folder": None if reference.weights == "synthetic" else str(weights_folder(reference)),
            "size": workload.size,
            "new_tokens": workload.new_tokens,
            "seed": seed,
            "shape_of": size.hub_id if size else None,
            "export_error": made.get("errors", {}),
            "tool": made.get("tool"),
            "versions": made.get("versions", {}),
            "reference_device": _device_name(device),
        },
        reference_rows=rows,
    ).save(folder)


@lru_cache(maxsize=1)  # a model of billions of parameters takes longer to make than one of its references
def _float32_model(reference: ModelReference, device: str = "cpu") -> PreTrainedModel:
    """Synthetic, or from the weights' folder."""
    model_class = model_classes()[reference.model_class]
    if reference.weights == "synthetic":
        from .synthetic import synthetic_model

        arguments = model_class.sizes[reference.size].config
        return synthetic_model(model_class, arguments, synthetic_seed(reference.origin), device)
    from .loading import load_folder

    model: Any = load_folder(model_class, weights_folder(reference))  # transformers' own ``to`` is mistyped
    return model.to(device)


def _device_name(device: str) -> str:
    """For the record of a launch: what computed its reference."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)}), float32 without TF32, transformers' own forward pass"


def _unexported(graph: ExportGraph) -> Graph:
    """The manifest's entry of a graph without files."""
    inputs = (
        TensorInfo(
            name, str(array.dtype), tuple(graph.dynamic.get(name, {}).get(axis, size) for axis, size in enumerate(array.shape))
        )
        for name, array in graph.inputs.items()
    )
    return Graph(files=(), sha256=(), bytes=0, inputs=tuple(inputs), outputs=())


def _graphs_path(reference: ModelReference, precision: str, cache_folder: Path) -> Path:
    key = identity({"model": model_key(reference), "precision": precision, "recipe": RECIPE})
    return cache_folder / "graphs" / key


def _graphs_folder(
    model_class: ModelClass, model: PreTrainedModel, reference: ModelReference, precision: str, cache_folder: Path
) -> Path:
    """ONNX files and ``graphs.json``: graphs as in the manifest, errors against the modules, versions of what made them."""
    folder = _graphs_path(reference, precision, cache_folder)
    if (folder / "graphs.json").is_file():
        return folder
    float32 = folder
    if precision != "float32":
        float32 = _graphs_folder(model_class, model, reference, "float32", cache_folder)

    def make(target: Path) -> None:
        from .export import TOOLS, convert, describe, error, export_float32

        examples = model_class.inputs(model.config, 2, _short(model_class), 1)
        graphs = model_class.graphs(model, examples, None)
        errors = {}
        with _eager_attention(model):
            for name, graph in graphs.items():
                path = target / f"{name}.onnx"
                if precision == "float32":
                    export_float32(graph, path)
                else:
                    convert(float32 / path.name, path, precision)
                errors[name] = error(path, graph)
                if not errors[name] <= ERROR_LIMITS[precision]:  # also where it is not a number
                    raise ArithmeticError(
                        f"The {precision} graph '{name}' of {model_class.name} {reference.size} is off by {errors[name]:.2g} of "
                        f"the largest output, more than {ERROR_LIMITS[precision]}."
                    )
        content = {
            "graphs": {name: asdict(describe(target / f"{name}.onnx")) for name in graphs},
            "errors": errors,
            "tool": TOOLS[precision],
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        }
        (target / "graphs.json").write_text(json.dumps(content, indent=1))

    return once(folder, make)


@contextlib.contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Plain products and a Softmax, which every engine has."""
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


def _short(model_class: ModelClass) -> int | None:
    """An odd length, so that a graph which fixed the traced one fails its check."""
    return None if model_class.default_sequence_length is None else 11


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"Preparing a model needs {', '.join(missing)}.", "Run: pip install 'ipfs_accelerate_py[torch,onnx]'"
        )
