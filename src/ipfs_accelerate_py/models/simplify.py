"""An ONNX graph without the arithmetic on shapes that the exporter writes: on a GPU it falls to the CPU."""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def fix_reshapes(model: onnx_ir.Model) -> None:
    """Give each Reshape of ``model`` a constant shape where its result's symbolic shape says one; drop what computed it."""
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        source, computed = node.inputs
        assert source is not None and computed is not None
        shape = constant_shape(source.shape, node.outputs[0].shape)
        if computed.const_value is not None or shape is None:
            continue
        name = f"{node.outputs[0].name}.shape"
        value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(np.array(shape, dtype=np.int64), name=name))
        value.dtype, value.shape = onnx_ir.DataType.INT64, onnx_ir.Shape([len(shape)])
        model.graph.register_initializer(value)
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)  # here 0 is the input's own size
    RemoveUnusedNodesPass()(model)


def constant_shape(given: onnx_ir.Shape | None, wanted: onnx_ir.Shape | None) -> list[int] | None:
    """Reshape's second input for a tensor of shape ``given`` to become ``wanted``: 0 where it keeps the named size of that place, and -1
    for one other that has no number. None where that is not enough, or unknown."""
    if given is None or wanted is None or 0 in wanted.dims:
        return None
    shape = []
    for place, size in enumerate(wanted.dims):
        if isinstance(size, int):
            shape.append(size)
        else:
            kept = size.value is not None and place < len(given) and size == given[place]
            shape.append(0 if kept else -1)
    return shape if shape.count(-1) <= 1 else None
