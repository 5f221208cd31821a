"""ONNX files from torch modules at each precision, and their error against the module they came from."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from onnx import helper

from .base import ExportGraph
from .precision import OVERFLOWS, quantise_in_groups, quantised_dynamically, to_float16
from .prepared import Graph, TensorInfo
from .simplify import fix_reshapes

OPSET = 20  # the first with Gelu as one operator; onnxruntime-web, OpenVINO and WebNN all take it
SHARD_BYTES = 1_500_000_000  # protobuf and browsers stop at 2 GB: heavier weights go into files of their own, each below this
# Sizes of the named dimensions while tracing: distinct and above 1, so that none is taken for a constant or for another.
TRACED_SIZES = {"batch": 2, "sequence": 3, "source": 5, "cache": 7}
# A quarter of float16's range: what is larger on the examples may be too large for other inputs, so it stays float32.
LARGEST_IN_FLOAT16 = 2.0**14
# What makes each variant. OpenVINO and the browsers run the same files.
TOOLS = {
    "float32": "torch.onnx.export",
    "float16": "models/precision.py on the float32 graph",
    "int8": "onnxruntime.quantization.quantize_dynamic",
    "int4": "onnxruntime.quantization.matmul_nbits_quantizer",
}


def export_float32(graph: ExportGraph, path: Path) -> None:
    """Write ``graph`` to ``path``, its dynamic dimensions under their names."""
    dimensions = {name: torch.export.Dim(name) for name in TRACED_SIZES}
    shapes = tuple({axis: dimensions[name] for axis, name in graph.dynamic.get(key, {}).items()} for key in graph.inputs)
    examples = tuple(_traced(array, graph.dynamic.get(key, {})) for key, array in graph.inputs.items())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(),
            examples,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=(shapes,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    fix_reshapes(program.model)
    _save(program.model, path)
    _mark_peaks(path, graph)


def convert(source: Path, path: Path, precision: str) -> None:
    """Write the float32 graph ``source`` to ``path`` at ``precision``: see ``precision.py``, and TOOLS for what makes it."""
    with _opened(source) as model, _quiet():
        if precision == "float16":
            to_float16(model.graph)
        elif precision == "int8":
            model = quantised_dynamically(model)
        elif precision == "int4":
            quantise_in_groups(model.graph)
        else:
            raise ValueError(precision)
        _save(model, path)


def error(path: Path, graph: ExportGraph) -> float:
    """Largest max|x - r| / max|r| over outputs, of the file on onnxruntime's CPU against the module, on the graph's example inputs."""
    with torch.no_grad():
        expected = graph.module(*(torch.from_numpy(array) for array in graph.inputs.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    types = {value.name: value.type for value in session.get_inputs()}
    feeds = {
        name: array.astype(np.float16) if types[name] == "tensor(float16)" else array for name, array in graph.inputs.items()
    }
    actual = session.run(list(graph.outputs), feeds)
    return max(
        float(np.abs(x.astype(np.float32) - r.numpy()).max() / np.abs(r.numpy()).max())
        for x, r in zip(actual, expected, strict=True)
    )


def describe(path: Path) -> Graph:
    """The manifest's entry of an ONNX file and its external data."""
    model = onnx.load(path, load_external_data=False)
    files = _files(path)
    paths = [path.parent / name for name in files]
    return Graph(
        files=tuple(files),
        sha256=tuple(sha256(file) for file in paths),
        bytes=sum(file.stat().st_size for file in paths),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
    )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _traced(array: np.ndarray, names: Mapping[int, str]) -> torch.Tensor:
    shape = [TRACED_SIZES[names[axis]] if axis in names else size for axis, size in enumerate(array.shape)]
    return torch.zeros(shape, dtype=torch.from_numpy(array[:0]).dtype)


def _tensor(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorInfo(value.name, str(dtype), tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim))


def _mark_peaks(path: Path, graph: ExportGraph) -> None:
    """Mark the nodes of the file whose output comes near float16's range on the graph's example inputs (OVERFLOWS in its metadata)."""
    model = onnx.load(path, load_external_data=False)
    floats = {value.name for value in model.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats |= set(graph.outputs)
    makers = {name: node for node in model.graph.node for name in node.output if name in floats}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for index, name in enumerate(makers):
        probe.graph.node.append(helper.make_node("Abs", [name], [f"magnitude.{index}"]))
        probe.graph.node.append(helper.make_node("ReduceMax", [f"magnitude.{index}"], [f"peak.{index}"], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(f"peak.{index}", onnx.TensorProto.FLOAT, []))
    probe_path = path.with_name(f"probe-{path.name}")  # beside it, where its external data is
    try:
        onnx.save(probe, probe_path)
        session = onnxruntime.InferenceSession(probe_path, providers=["CPUExecutionProvider"])
        peaks = session.run(None, dict(graph.inputs))
    finally:
        probe_path.unlink(missing_ok=True)
    large = [(makers[name], peak) for name, peak in zip(makers, peaks, strict=True) if peak > LARGEST_IN_FLOAT16]
    for node, peak in large:
        node.metadata_props.add(key=OVERFLOWS, value=f"{peak:.0f}")
    if large:
        onnx.save(model, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[onnx_ir.Model]:
    """The model, its external data read as it is needed. onnx refuses such data with hard links, as the cache's has, so it reads a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _files(path):
            shutil.copyfile(path.parent / name, Path(folder) / name)
        yield onnx_ir.load(Path(folder) / path.name)


def _files(path: Path) -> list[str]:
    """Names of the ONNX file and of its external data."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    data = [entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    return list(dict.fromkeys([path.name, *data]))


def _save(model: onnx_ir.Model, path: Path) -> None:
    """As one file where it fits, else with external data in files below the limit; then let onnx check it.

    The exporter's notes (stack traces with paths of this machine) stay out of it.
    """
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if weights < SHARD_BYTES:
        onnx_ir.external_data.load_to_model(model)
        onnx_ir.save(model, path)
    else:
        onnx_ir.save(model, path, external_data=f"{path.name}.data", max_shard_size_bytes=SHARD_BYTES)
    onnx.checker.check_model(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress notes and deprecation warnings, which a user can do nothing about, off the terminal."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    silent = logging.NullHandler()
    loggers[0].addHandler(
        silent
    )  # onnxruntime's quantizer calls basicConfig when imported, which leaves alone a root that has one
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        loggers[0].removeHandler(silent)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
