"""Operator counts of any ONNX graph, by its own shapes. Neither weights nor external data are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnavailableError, UserError
from .operator import ModelCounts, Operator, PhaseCounts
from .tape import FLOPS_OF

BATCH_NAMES = ("batch", "batch_size", "n")
KIND_OF = {
    **dict.fromkeys(("Softmax", "LogSoftmax"), "softmax"),
    **dict.fromkeys(
        (
            *("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"),
            *("SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LpNormalization"),
        ),
        "norm",
    ),
    **dict.fromkeys(
        (
            *(
                "Gelu",
                "FastGelu",
                "BiasGelu",
                "QuickGelu",
                "Relu",
                "Sigmoid",
                "Tanh",
                "Erf",
                "Swish",
                "Silu",
                "LeakyRelu",
                "Elu",
            ),
            *("HardSigmoid", "HardSwish", "Softplus", "Mish", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "PRelu"),
        ),
        "activation",
    ),
    **dict.fromkeys(
        (
            *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Min", "Max", "Clip", "Where", "Equal", "Less", "LessOrEqual"),
            *("Greater", "GreaterOrEqual", "And", "Or", "Not", "Floor", "Ceil", "Round", "Mod", "Sum", "Sign", "Dropout"),
            *("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "RotaryEmbedding"),
        ),
        "elementwise",
    ),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "OneHot"), "gather"),
    **dict.fromkeys(
        (
            *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare", "ArgMax"),
            *("ArgMin", "TopK", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "CumSum"),
        ),
        "reduce",
    ),
    **dict.fromkeys(("Transpose", "Concat", "Slice", "Split", "Pad", "Expand", "Tile", "Cast", "Resize", "Range"), "copy"),
}
FREE = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size", "Constant", "ConstantOfShape"}
MATRIX_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "FusedMatMul"}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as missing:
        raise UnavailableError(
            "Reading an ONNX file needs the package onnx.", "pip install 'ipfs_accelerate_py[onnx]'"
        ) from missing
    return onnx


def _load(path: Path) -> Any:
    """The model without its external data; UserError where the file is not one."""
    onnx = _onnx()
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, onnx.checker.ValidationError, OSError) as broken:
        raise UserError(f"'{path}' is not an ONNX model: {' '.join(str(broken).split())[:200]}.") from broken
    if not model.graph.node:
        raise UserError(f"'{path}' is not an ONNX model: it has no operators.")
    return model


def parameters_of(path: Path) -> int:
    """Numbers in the floating-point and quantized initialisers, constants of shapes left out."""
    onnx = _onnx()
    graph = _load(path).graph
    integers = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
    return sum(math.prod(each.dims) for each in graph.initializer if each.data_type not in integers)


def count_graph(path: Path, batch_size: int, sequence_length: int, precision: str, mode: str) -> ModelCounts:
    """One run of the graph. A first dimension with a name, or one called batch, is the batch; every other named one has the sequence's
    length. The file's own types count: ``precision`` and ``mode`` other than its own are refused."""
    if mode != "inference":
        raise UserError("A graph is counted for inference; for training give a model's name or its config.json.")
    onnx = _onnx()
    model = _load(path)
    notes = _bind(model.graph, batch_size, sequence_length)
    own = _precision(onnx, model.graph)
    if precision not in ("float32", own):
        raise UserError(f"'{path}' is a graph at {own}; export it at {precision}, and give that file.")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes, sizes = _tensors(onnx, inferred.graph)
    weights = {each.name for each in inferred.graph.initializer}
    operators, unshaped = [], set()
    for node in inferred.graph.node:
        if node.op_type in FREE or all(name in weights for name in node.input if name):
            continue
        try:
            operators.append(_operator(node, shapes, sizes, weights))
        except KeyError:
            unshaped.add(node.op_type)
            operators.append(Operator("unknown", node.op_type, 0, 0, 0))
    if unshaped:
        notes.append(f"no shapes are known of {len(unshaped)} kinds of operators: {', '.join(sorted(unshaped))}")
    phase = PhaseCounts("forward", tuple(operators))
    return ModelCounts(
        parameters=parameters_of(path),
        weights_bytes=sum(sizes[name] for name in weights),
        kv_cache_bytes=sum(sizes.get(each.name, 0) for each in inferred.graph.input if each.name.startswith("past")),
        largest_activation_bytes=max(each.bytes_read - each.weights_bytes + each.bytes_written for each in operators),
        phases={"forward": phase},
        output_bytes=sum(sizes.get(each.name, 0) for each in inferred.graph.output),
        notes=tuple(notes),
    )


def _bind(graph: Any, batch_size: int, sequence_length: int) -> list[str]:
    """Give every named dimension of the inputs its number. Returns what was taken for what."""
    initialised = {each.name for each in graph.initializer}
    bound: dict[str, int] = {}
    for given in graph.input:
        if given.name in initialised:
            continue
        for index, dimension in enumerate(given.type.tensor_type.shape.dim):
            if dimension.HasField("dim_value") and dimension.dim_value > 0:
                continue
            name = dimension.dim_param
            batch = name.lower() in BATCH_NAMES or (index == 0 and len(given.type.tensor_type.shape.dim) > 1)
            bound.setdefault(name, batch_size if batch else sequence_length)
            dimension.dim_value = bound[name]
    for each in (*graph.output, *graph.value_info):  # what was inferred for other sizes is inferred again
        for dimension in each.type.tensor_type.shape.dim:
            if dimension.dim_param in bound:
                dimension.dim_value = bound[dimension.dim_param]
    return [f"the dimension '{name}' is {value}" for name, value in sorted(bound.items())]


def _precision(onnx: Any, graph: Any) -> str:
    kinds = {each.data_type for each in graph.initializer if math.prod(each.dims) > 1}
    if any(node.op_type == "MatMulNBits" for node in graph.node):
        return "int4"
    if kinds & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}:
        return "int8"
    names = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
    return next((name for kind, name in names.items() if kind in kinds), "float32")


def _tensors(onnx: Any, graph: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shape and bytes of every tensor whose shape is known."""
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}

    def add(name: str, shape: tuple[int, ...], kind: int) -> None:
        width = 8 if kind == onnx.TensorProto.STRING else onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        shapes[name], sizes[name] = shape, math.prod(shape) * width

    for each in (*graph.input, *graph.value_info, *graph.output):
        dimensions = each.type.tensor_type.shape.dim
        if each.type.tensor_type.HasField("shape") and all(dimension.HasField("dim_value") for dimension in dimensions):
            add(each.name, tuple(dimension.dim_value for dimension in dimensions), each.type.tensor_type.elem_type)
    for each in graph.initializer:
        add(each.name, tuple(each.dims), each.data_type)
    return shapes, sizes


def _operator(node: Any, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], weights: set[str]) -> Operator:
    """KeyError where a shape that is needed is not known."""
    name, kind = node.name or node.op_type, node.op_type
    written = sum(sizes[each] for each in node.output if each)
    # An operand of unknown shape is at most as large as what it is added to.
    at_most = {each: written for each in node.input} if KIND_OF.get(kind) == "elementwise" else {}
    read = sum(sizes.get(each, at_most[each]) if each in at_most else sizes[each] for each in node.input if each)
    weights_read = sum(sizes[each] for each in node.input if each in weights)
    out = shapes[node.output[0]]
    if kind in MATRIX_PRODUCTS or kind in ("Conv", "ConvTranspose", "ConvInteger"):
        shape = _product_shape(node, shapes, out)
        operator_kind = "conv" if kind.startswith("Conv") else "matmul"
        return Operator(operator_kind, name, 2 * math.prod(shape), read, written, weights_read, shape=shape)
    known = KIND_OF.get(kind)
    if known is None:
        return Operator("unknown", kind, 0, read, written, weights_read)
    if known == "gather" and node.input[0] in weights:
        read, weights_read = written, 0  # the rows that are read, not the table
    elements = math.prod(shapes[node.input[0]] if known == "reduce" else out)
    return Operator(known, name, FLOPS_OF[known] * elements, read, written, weights_read)


def _product_shape(node: Any, shapes: Mapping[str, tuple[int, ...]], out: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(products, rows, inner, columns) of a matrix product or a convolution."""
    attributes = {each.name: each for each in node.attribute}
    if node.op_type in ("Conv", "ConvInteger"):
        groups = attributes["group"].i if "group" in attributes else 1
        filters = shapes[node.input[1]]
        places = out[0] * math.prod(out[2:])
        return groups, places, math.prod(filters[1:]), out[1] // groups
    if node.op_type == "ConvTranspose":
        groups = attributes["group"].i if "group" in attributes else 1
        given, filters = shapes[node.input[0]], shapes[node.input[1]]
        places = given[0] * math.prod(given[2:])
        return groups, places, given[1] // groups, math.prod(filters[1:])
    if node.op_type == "MatMulNBits":
        inner, columns = attributes["K"].i, attributes["N"].i
        return 1, math.prod(out[:-1]), inner, columns
    left = shapes[node.input[0]]
    transposed = node.op_type == "Gemm" and "transA" in attributes and attributes["transA"].i
    inner = left[0] if transposed else left[-1]
    right = shapes[node.input[1]]
    if len(right) <= 2 and len(out) >= 2:
        return 1, math.prod(out[:-1]), inner, out[-1]
    if len(out) < 2:
        return 1, 1, inner, math.prod(out)
    return math.prod(out[:-2]), out[-2], inner, out[-1]
