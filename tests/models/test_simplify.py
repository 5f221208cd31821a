"""Constant shapes for Reshapes whose result's named shape says one."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import pytest

from ipfs_accelerate_py.models.simplify import constant_shape, fix_reshapes


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        (["batch", "sequence", 8], ["batch", "sequence", 2, 4], [0, 0, 2, 4]),
        (["batch", 5, 8], ["5*batch", 8], [-1, 8]),
        (["5*batch", 8], ["batch", 5, 8], [-1, 5, 8]),
        (["batch", "sequence"], ["sequence", "batch"], None),  # neither keeps its place
        ([None, None, 8], [None, 8], [-1, 8]),
        ([None, None, 8], [None, None, 2, 4], None),  # unknown sizes are not the same
        (["batch", 0], ["batch", 0], None),
        (None, ["batch"], None),
    ],
)
def test_constant_shape(given: list | None, wanted: list, expected: list[int] | None) -> None:
    """0 for a size that stays at its place, one -1 at most, None for what is not known."""
    assert constant_shape(None if given is None else onnx_ir.Shape(given), onnx_ir.Shape(wanted)) == expected


def test_computed_shapes_go_away() -> None:
    """Heads are split at a constant shape, the nodes that computed one are gone, and the values stay."""
    model = onnx_ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 20]>
        split (float[batch, sequence, 8] x) => (float[batch, sequence, 2, 4] heads) <int64[2] parts = {2, 4}> {
            sizes = Shape <end = 2> (x)
            shape = Concat <axis = 0> (sizes, parts)
            heads = Reshape <allowzero = 1> (x, shape)
        }
    """)
    fix_reshapes(model)
    assert [node.op_type for node in model.graph] == ["Reshape"]
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((3, 5, 8), dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x.reshape(3, 5, 2, 4))
