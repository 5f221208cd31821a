"""An ONNX graph at a lower precision: float16 wherever that is safe, or the weights of its matrix products in 8 or 4 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir
from onnx_ir import DataType

# Tensors that go from graph to graph on the device, so they take the precision of the weights.
CACHES = ("past.", "present.", "cross.", "image_features")
# A node of the float32 graph has this entry where its output came near float16's range on the examples (``export_float32`` writes it).
OVERFLOWS = "peak"
# Sums of many terms, and operators that onnxruntime-web has for float32 alone.
SUMS = {"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "InstanceNormalization", "GroupNormalization", "CumSum"}
FLOAT32_ONLY = SUMS | {"Range", "TopK", "NonMaxSuppression", "RoiAlign", "Resize"}
INTEGERS = {DataType.INT32, DataType.INT64}
GROUP = 32  # weights that share a scale


def to_float16(graph: onnx_ir.Graph) -> None:
    """Change ``graph`` in place: weights, arithmetic and CACHES become float16, other inputs and outputs stay float32.

    What ``float32_nodes`` names stays float32, with a cast where one type meets the other.
    """
    wide = float32_nodes(graph)
    for given in graph.inputs:
        if given.dtype == DataType.FLOAT and _name(given).startswith(CACHES):
            given.dtype = DataType.FLOAT16
    for node in graph:
        dtype = DataType.FLOAT if node in wide else DataType.FLOAT16
        if dtype == DataType.FLOAT16:
            _retype_attributes(node)
        for output in node.outputs:
            if output.dtype == DataType.FLOAT:
                output.dtype = dtype
    converted: dict[tuple[onnx_ir.Value, DataType], onnx_ir.Value] = {}
    for node in list(graph):
        dtype = DataType.FLOAT if node in wide else DataType.FLOAT16
        for index, value in enumerate(node.inputs):
            if node.op_type == "Cast" or value is None or value.dtype not in (DataType.FLOAT, DataType.FLOAT16):
                continue
            if value.dtype != dtype:
                if (value, dtype) not in converted:
                    converted[value, dtype] = _as(graph, value, dtype)
                node.replace_input_with(index, converted[value, dtype])
    for index, output in enumerate(graph.outputs):
        name = _name(output)
        dtype = DataType.FLOAT16 if name.startswith(CACHES) else DataType.FLOAT
        if output.dtype in (DataType.FLOAT, DataType.FLOAT16) and output.dtype != dtype:
            output.name = f"{name}.computed"
            result = _as(graph, output, dtype)
            result.name = name
            graph.outputs[index] = result
    _drop_unused(graph)
    graph.sort()


def float32_nodes(graph: onnx_ir.Graph) -> set[onnx_ir.Node]:
    """Nodes whose results float16 cannot hold, or not well enough.

    * The sums of SUMS, with the squares that go into them: squares of real models' activations go beyond float16's 65504.
    * Of the norms so made (x / sqrt(mean(x^2) + epsilon)) everything up to the reciprocal: epsilon is below float16's smallest number.
    * What Sin, Cos and casts to integers are computed from: positions, and float16 has no 2049.
    * What the examples took near the range (OVERFLOWS), with whatever reads it: T5's feed-forward products and the sums they go into.
    """
    wide = {node for node in graph if node.op_type in FLOAT32_ONLY or OVERFLOWS in node.metadata_props}
    for node in graph:
        if OVERFLOWS in node.metadata_props:
            wide.update(node.successors())
        if node.op_type in ("Sin", "Cos") or (node.op_type == "Cast" and node.outputs[0].dtype in INTEGERS):
            wide.update(_float_ancestors(node))
        if node.op_type in SUMS:
            wide.update(maker for maker in node.predecessors() if _is_square(maker))
            wide.update(_root_of(node))
    return wide


def quantised_dynamically(model: onnx_ir.Model) -> onnx_ir.Model:
    """``model`` with int8 weights of matrix products, a scale for each output column, and activations rounded to 8 bits as they come, by
    a scale for the whole tensor (onnxruntime's dynamic quantisation: DynamicQuantizeLinear and MatMulInteger).

    Convolutions, embeddings and products of two activations stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _untie(model.graph)
    onnx_ir.external_data.load_to_model(model)  # the quantiser does not know where external data is
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            onnx_ir.to_proto(model),
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        quantised = onnx_ir.load(path)
        onnx_ir.external_data.load_to_model(quantised)
    return quantised


def quantise_in_groups(graph: onnx_ir.Graph) -> None:
    """Change ``graph`` in place: weights of matrix products get 4 bits, in groups of GROUP along the summed axis with a float32 scale
    each, the nearest of a symmetric grid (onnxruntime's quantizer for MatMulNBits).

    Convolutions, embeddings and products of two activations stay as they are.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    _untie(graph)
    quantiser = DefaultWeightOnlyQuantizer(DefaultWeightOnlyQuantConfig(block_size=GROUP, is_symmetric=True, bits=4))
    made: dict[str, tuple[onnx_ir.Value, onnx_ir.Value]] = {}
    for node in list(graph):
        weight = node.inputs[1].const_value if node.op_type == "MatMul" and node.inputs[1] is not None else None
        if weight is None or len(weight.shape) != 2:
            continue
        name = _name(node.inputs[1])
        if name not in made:
            packed, scales, _ = quantiser.qbits_block_quant(np.ascontiguousarray(weight.numpy(), dtype=np.float32))
            made[name] = (_initializer(graph, f"{name}.4bit", packed), _initializer(graph, f"{name}.scales", scales))
        # accuracy_level 4: the engine may round activations to 8 bits within each group. That adds 0.5 % of
        # noise to the weights' 8.6 %, and a product of one row, which is what decoding does, takes a third of the time.
        summed, columns = weight.numpy().shape
        attributes = {"K": summed, "N": columns, "bits": 4, "block_size": GROUP, "accuracy_level": 4}
        product = onnx_ir.node("MatMulNBits", [node.inputs[0], *made[name]], attributes, domain="com.microsoft", name=node.name)
        graph.insert_before(node, product)
        old, new = node.outputs[0], product.outputs[0]
        result, old.name = old.name, f"{old.name}.replaced"
        new.name, new.type, new.shape = result, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    graph.opset_imports["com.microsoft"] = 1
    _drop_unused(graph)


def _untie(graph: onnx_ir.Graph) -> None:
    """A constant that is read transposed, as an embedding which is also the output matrix, gets a transposed copy to be quantised."""
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is not None and source.const_value is not None and len(source.const_value.shape) == 2:
            copy = _initializer(graph, f"{node.outputs[0].name}.constant", np.ascontiguousarray(source.const_value.numpy().T))
            node.outputs[0].replace_all_uses_with(copy)
    _drop_unused(graph)


def _float_ancestors(node: onnx_ir.Node) -> set[onnx_ir.Node]:
    """``node`` and every node whose floats it is computed from."""
    found, waiting = {node}, [node]
    while waiting:
        for value in waiting.pop().inputs:
            maker = value.producer() if value is not None and value.dtype == DataType.FLOAT else None
            if maker is not None and maker not in found:
                found.add(maker)
                waiting.append(maker)
    return found


def _is_square(node: onnx_ir.Node) -> bool:
    return node.op_type in ("Pow", "Abs") or (node.op_type == "Mul" and node.inputs[0] is node.inputs[1])


def _root_of(mean: onnx_ir.Node) -> Iterator[onnx_ir.Node]:
    """The nodes after ``mean`` up to the reciprocal root, where that is what follows."""
    followers = mean.successors()
    while len(followers) == 1 and followers[0].op_type in ("Add", "Sqrt", "Reciprocal"):
        yield followers[0]
        followers = followers[0].successors()


def _retype_attributes(node: onnx_ir.Node) -> None:
    """The attributes that hold a float32 type or tensor, at float16."""
    for name, attribute in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and attribute.as_int() == DataType.FLOAT:
            node.attributes[name] = onnx_ir.AttrInt64(name, DataType.FLOAT16)
        elif attribute.type == onnx_ir.AttributeType.TENSOR and attribute.as_tensor().dtype == DataType.FLOAT:
            node.attributes[name] = onnx_ir.AttrTensor(name, onnx_ir.tensor(_half(attribute.as_tensor().numpy())))


def _as(graph: onnx_ir.Graph, value: onnx_ir.Value, dtype: DataType) -> onnx_ir.Value:
    """The same value of another type: a converted weight, or a cast."""
    suffix = "float16" if dtype == DataType.FLOAT16 else "float32"
    if value.const_value is not None and value.producer() is None:
        array = value.const_value.numpy()
        return _initializer(graph, f"{value.name}.{suffix}", _half(array) if suffix == "float16" else array.astype(np.float32))
    cast = onnx_ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}.{suffix}")
    result = cast.outputs[0]
    result.name, result.dtype, result.shape = f"{value.name}.{suffix}", dtype, value.shape
    graph.append(cast)  # the graph is sorted at the end
    return result


def _half(array: np.ndarray) -> np.ndarray:
    """float16 with what lies outside its range at the range's end, and what is not zero not made zero."""
    smallest, largest = np.finfo(np.float16).smallest_subnormal, np.finfo(np.float16).max
    half = np.clip(array, -largest, largest).astype(np.float16)
    return np.where((half == 0) & (array != 0), np.copysign(smallest, array), half).astype(np.float16)


def _initializer(graph: onnx_ir.Graph, name: str, array: np.ndarray) -> onnx_ir.Value:
    value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name))
    value.dtype, value.shape = onnx_ir.DataType.from_numpy(array.dtype), onnx_ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _drop_unused(graph: onnx_ir.Graph) -> None:
    kept: Iterable[onnx_ir.Value] = graph.outputs
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in kept:
            del graph.initializers[name]


def _name(value: onnx_ir.Value | None) -> str:
    assert value is not None and value.name is not None
    return value.name
