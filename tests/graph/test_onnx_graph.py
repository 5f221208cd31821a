"""Counts of ONNX files: ours against the formulas of the classes, and hand-made graphs against sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import count, describe


@pytest.mark.parametrize("name", ["bert", "vit", "clip", "wav2vec2"])
def test_an_exported_graph_has_the_products_of_the_formulas(name: str, prepared: Callable[..., Path]) -> None:
    """The ONNX file of a class, counted by its own shapes, has exactly the FLOPs of the class's formulas."""
    pytest.importorskip("onnx")
    graph = count(describe(prepared(name) / "model.onnx"), batch_size=3, sequence_length=9)
    formulas = count(describe(name, "tiny"), batch_size=3, sequence_length=9)
    assert set(graph.phases["forward"].unknown) <= {"Slice"}  # of a table, by a length that only a run computes
    assert graph.phases["forward"].matmul_flops == formulas.phases["forward"].matmul_flops


def test_a_graph_by_hand(tmp_path: Path) -> None:
    """A matrix product, a convolution, and an operator that nobody knows, which is said."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [8, 5], [0.0] * 40)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Frobnicate", ["y"], ["z"], domain="example"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 8])
    given_out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", "length", 5])
    graph = helper.make_graph(nodes, "g", [given], [given_out], [weights])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "g.onnx")
    description = describe(tmp_path / "g.onnx")
    assert (description.parameters, description.model_class) == (40, None)
    forward = count(description, batch_size=2, sequence_length=7).phases["forward"]
    assert forward.matmul_flops == 2 * (2 * 7) * 8 * 5
    product = forward.operators[0]
    assert (product.bytes_read, product.bytes_written, product.weights_bytes) == (4 * (2 * 7 * 8 + 40), 4 * 2 * 7 * 5, 160)
    assert forward.unknown == ("Frobnicate",)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    """By one sentence that names it."""
    pytest.importorskip("onnx")
    (tmp_path / "broken.onnx").write_bytes(b"this is not a graph")
    with pytest.raises(UserError, match=r"broken.onnx' is not an ONNX model"):
        describe(tmp_path / "broken.onnx")
