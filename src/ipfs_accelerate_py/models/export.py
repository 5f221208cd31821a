"""ONNX files from torch modules at float32, float16 and int8, and their error against the module they came from."""

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
from .prepared import Graph, TensorInfo

OPSET = 20  # the first with Gelu as one operator; onnxruntime-web, OpenVINO and WebNN all take it
CACHES = ("past.", "present.", "cross.")  # tensors that stay between steps, so they take the precision of the weights
SHARD_BYTES = 1_500_000_000  # protobuf and browsers stop at 2 GB: heavier weights go into files of their own, each below this
# Sizes of the named dimensions while tracing: distinct and above 1, so that none is taken for a constant or for another.
TRACED_SIZES = {"batch": 2, "sequence": 3, "cache": 7}


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
    _save(program.model, path)


def convert(source: Path, path: Path, precision: str) -> None:
    """Write the float32 graph ``source`` to ``path`` at ``precision``.

    float16: weights, arithmetic and the key-value cache; other inputs and outputs stay float32. The variance of a norm is computed
    in float32, because squares of real models' activations go beyond float16's 65504.
    int8: weights of matrix products, per output column, with activations quantised as they come (onnxruntime's dynamic quantisation).
    """
    if precision == "float16":
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        model = _load(source)
        keep = [value.name for value in (*model.graph.input, *model.graph.output) if not value.name.startswith(CACHES)]
        with _quiet():
            model = convert_float_to_float16(
                model,
                keep_io_types=keep,
                disable_shape_infer=True,  # the exporter wrote every shape, and inference stops at 2 GB
                op_block_list=[*DEFAULT_OP_BLOCK_LIST, "ReduceL2", "ReduceSum"],
                node_block_list=_norm_nodes(model.graph),
            )
        sorted_model = onnx_ir.from_proto(model)
        sorted_model.graph.sort()  # the converter appends its casts
        _save(sorted_model, path)
    elif precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quiet(), tempfile.TemporaryDirectory() as folder:
            quantised = Path(folder) / path.name
            quantize_dynamic(
                _load(source),
                quantised,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
                extra_options={"MatMulConstBOnly": True},
            )
            _save(onnx_ir.load(quantised), path)
    else:
        raise ValueError(precision)


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


def _norm_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes of each RMS norm from the square to the reciprocal root."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for mean in (node for node in graph.node if node.op_type == "ReduceMean"):
        chain = [makers[mean.input[0]], mean]
        while (following := users[chain[-1].output[0]])[0].op_type in ("Add", "Sqrt", "Reciprocal"):
            chain.append(following[0])
        found += [node.name for node in chain]
    return found


def _load(path: Path) -> onnx.ModelProto:
    """With its weights. onnx refuses external data that has hard links, as the cache's has, so it reads a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _files(path):
            shutil.copyfile(path.parent / name, Path(folder) / name)
        return onnx.load(Path(folder) / path.name)


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
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
