"""Graphs at float16 and with quantised weights: what is converted, what stays float32 because it must, and how far that is from float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from ipfs_accelerate_py.measure.accuracy import RULES, check
from ipfs_accelerate_py.models.base import ExportGraph
from ipfs_accelerate_py.models.export import TOOLS, convert, error, export_float32
from ipfs_accelerate_py.models.modules import Forward
from ipfs_accelerate_py.models.precision import GROUP, OVERFLOWS
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.spec import PRECISIONS

Graphs = Callable[..., Path]


def plain_graph(module: nn.Module, inputs: dict[str, np.ndarray]) -> ExportGraph:
    wrapped = Forward(module.eval(), lambda model, *tensors: model(*tensors))
    return ExportGraph(wrapped, inputs, ("y",), {name: {0: "batch"} for name in inputs})


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., tuple[Path, Path, ExportGraph]]:
    """``converted(module, inputs, precision)``: the float32 file, the converted one and the graph; the first axis is the batch."""

    def make(module: nn.Module, inputs: dict[str, np.ndarray], precision: str) -> tuple[Path, Path, ExportGraph]:
        graph = plain_graph(module, inputs)
        export_float32(graph, tmp_path / "float32.onnx")
        convert(tmp_path / "float32.onnx", tmp_path / f"{precision}.onnx", precision)
        return tmp_path / "float32.onnx", tmp_path / f"{precision}.onnx", graph

    return make


def types(path: Path) -> dict[str, int]:
    """Element type by the name of each value."""
    model = onnx.load(path)
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


def nodes(path: Path, operator: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type == operator]


def numpy_error(path: Path, graph: ExportGraph) -> float:
    """As ``error``, by onnx's own NumPy evaluator: onnxruntime's CPU would keep float32 from one operator to the next."""
    with torch.no_grad():
        expected = graph.module(*(torch.from_numpy(array) for array in graph.inputs.values())).numpy()
    actual = ReferenceEvaluator(str(path)).run(None, dict(graph.inputs))[0]
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2)), as T5's and Llama's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class FeedForward(nn.Module):
    """A residual feed-forward block between two norms whose product grows beyond float16, as T5's does."""

    def __init__(self) -> None:
        super().__init__()
        self.grow, self.back = nn.Linear(64, 64), nn.Linear(64, 64)
        nn.init.normal_(self.grow.weight, std=100)
        nn.init.normal_(self.back.weight, std=200)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x + self.back(self.grow(RmsNorm()(x)).relu())
        return RmsNorm()(hidden)


def rows(*shape: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("precision", ["float16", "int8", "int4"])
@pytest.mark.parametrize("name", model_classes())
def test_every_class_converts(prepared: Graphs, name: str, precision: str) -> None:
    """Each class has each precision: its files hold that type of weight, are smaller, and are as close as the precision's rule asks."""
    folder = prepared(name, precision=precision)
    manifest, full = Manifest.read(folder), Manifest.read(prepared(name))
    assert manifest.weights_bytes < full.weights_bytes
    assert manifest.graphs.keys() == full.graphs.keys()
    assert 0 < max(manifest.facts["export_error"].values()) <= RULES[precision].relative_error
    files = [folder / graph.files[0] for graph in manifest.graphs.values()]
    if precision == "float16":
        weights = [tensor for file in files for tensor in onnx.load(file).graph.initializer]
        half = sum(len(tensor.raw_data) for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT16)
        single = sum(len(tensor.raw_data) for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT)
        assert half > 10 * single
    else:
        assert any(nodes(file, {"int8": "MatMulInteger", "int4": "MatMulNBits"}[precision]) for file in files)
        constants = {tensor.name for file in files for tensor in onnx.load(file).graph.initializer}
        assert not any(product.input[1] in constants for file in files for product in nodes(file, "MatMul"))


def test_float16_keeps_inputs_and_outputs_but_for_the_caches(prepared: Graphs) -> None:
    """What a caller gives and gets stays float32; what goes from step to step and from graph to graph is float16."""
    for name, graph in Manifest.read(prepared("whisper", precision="float16")).graphs.items():
        dtypes = {tensor.name: tensor.dtype for tensor in (*graph.inputs, *graph.outputs) if tensor.dtype.startswith("float")}
        caches = {tensor for tensor in dtypes if tensor.startswith(("past.", "present.", "cross."))}
        assert caches, name
        assert all(dtypes[tensor] == ("float16" if tensor in caches else "float32") for tensor in dtypes)


def test_what_overflows_stays_float32(converted: Callable) -> None:
    """Products beyond float16's range, the sum that they go into and the norm that reads it are computed in float32; the rest is not."""
    torch.manual_seed(0)
    float32, float16, graph = converted(FeedForward(), {"x": rows(2, 5, 64)}, "float16")
    assert numpy_error(float16, graph) < 5e-3
    marked = [node for node in onnx.load(float32).graph.node if any(entry.key == OVERFLOWS for entry in node.metadata_props)]
    assert {"MatMul", "Add"} <= {node.op_type for node in marked}
    found = types(float16)
    assert {found[node.input[1]] for node in nodes(float16, "MatMul")} == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    assert not any(node.metadata_props for node in onnx.load(float16).graph.node)

    unmarked = onnx.load(float32)  # so that this test can fail
    for node in unmarked.graph.node:
        del node.metadata_props[:]
    onnx.save(unmarked, float32)
    convert(float32, float16, "float16")
    with np.errstate(all="ignore"):
        assert np.isnan(numpy_error(float16, graph))


def test_squares_of_a_norm_stay_float32(converted: Callable) -> None:
    """Activations of 1000 have squares that float16 has not, and a norm's epsilon is below its smallest number."""
    for scale in (1000, 1e-2):
        _, float16, graph = converted(RmsNorm(), {"x": rows(2, 5, 64, scale=scale)}, "float16")
        assert numpy_error(float16, graph) < 2e-3
        found = types(float16)
        assert found[nodes(float16, "ReduceMean")[0].output[0]] == onnx.TensorProto.FLOAT
        assert found[nodes(float16, "Mul")[-1].input[1]] == onnx.TensorProto.FLOAT16


class Means(nn.Module):
    """Means that are no norm: of an input, of a product, and one whose result is given out and used twice."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        pooled = (x * mask).mean(1, keepdim=True)
        return x.mean(1) + pooled[:, 0].sqrt() + (pooled + 1)[:, 0]


def test_other_means_convert(converted: Callable) -> None:
    """A mean without a square before it or a root behind it is no norm, and no error."""
    _, float16, graph = converted(Means(), {"x": np.abs(rows(2, 5, 64)), "mask": np.ones((2, 5, 1), np.float32)}, "float16")
    assert numpy_error(float16, graph) < 2e-3


class Rotation(nn.Module):
    """cos(position * frequency), as rotary embeddings have it."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        frequencies = 10000.0 ** (-torch.arange(0, 32, dtype=torch.float32) / 32)
        return x * torch.cos(positions.float()[:, :, None] * frequencies)


def test_positions_stay_float32(converted: Callable) -> None:
    """Position 3001 is none of float16's numbers, and a half of an angle's radian would be wrong long before."""
    inputs = {"x": np.ones((2, 3, 32), np.float32), "positions": np.array([[3001, 777, 2049]] * 2)}
    _, float16, graph = converted(Rotation(), inputs, "float16")
    assert numpy_error(float16, graph) < 1e-3


class Normalised(nn.Module):
    """Convolution with batch norm, group norm, and a constant mask as large as float32 allows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8))
        self.layers[1].running_mean.normal_()
        self.layers[1].running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layers(x).flatten(2)
        masked = torch.where(torch.arange(features.shape[-1]) < 40, 0.0, torch.finfo(torch.float32).min)
        return (features + masked).softmax(-1)


def test_normalised_convolutions_convert(converted: Callable) -> None:
    """Batch norm, group norm and a mask of float32's lowest number come through; int4 leaves convolutions as they are."""
    torch.manual_seed(0)
    module = Normalised()
    _, float16, graph = converted(module, {"x": rows(2, 3, 12, 12)}, "float16")
    assert numpy_error(float16, graph) < 5e-3
    _, int4, graph = converted(module, {"x": rows(2, 3, 12, 12)}, "int4")
    assert error(int4, graph) < 1e-5


class Tied(nn.Module):
    """An embedding that is also the output matrix, and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(100, 64), nn.Linear(64, 64)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.inner(self.inner(self.table(ids)).relu())
        mixed = (hidden @ hidden.transpose(1, 2)).softmax(-1) @ hidden
        return mixed @ self.table.weight.T


def test_weights_are_the_nearest_of_the_grid(converted: Callable) -> None:
    """At 4 bits each stored weight is within half a step of its own, a group has one scale, and nothing else is touched."""
    torch.manual_seed(0)
    module = Tied()
    _, path, graph = converted(module, {"ids": np.arange(10).reshape(2, 5)}, "int4")
    model = onnx.load(path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = nodes(path, "MatMulNBits")
    assert len(products) == 3
    assert len(nodes(path, "MatMul")) == 2
    table = next(tensors[node.input[0]] for node in model.graph.node if node.op_type == "Gather")
    np.testing.assert_array_equal(table, module.table.weight.detach().numpy())
    for product, weight in ((products[0], module.inner.weight), (products[-1], module.table.weight)):
        packed, scales = tensors[product.input[1]], tensors[product.input[2]]
        exact = weight.detach().numpy()  # [columns, summed], as the packed ones
        assert scales.shape == (exact.shape[0], 64 // GROUP)
        codes = np.stack([packed & 15, packed >> 4], -1).reshape(*scales.shape, GROUP)
        values = (codes.astype(np.float32) - 8) * scales[..., None]
        steps = np.abs(values - exact.reshape(values.shape)) / np.abs(scales)[..., None]
        # The group's largest weight takes the grid's far end; one of the other sign and nearly as large is a whole step from the near end.
        assert steps.max() < 1.001
        assert np.mean(steps < 0.501) > 0.95
    assert 0 < error(path, graph) < 0.3


def test_int8_takes_every_weight_of_a_product(converted: Callable) -> None:
    """The output matrix that is also the embedding gets int8 weights for the product; the embedding stays, and so do other products."""
    torch.manual_seed(0)
    module = Tied()
    _, path, graph = converted(module, {"ids": np.arange(10).reshape(2, 5)}, "int8")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    products = nodes(path, "MatMulInteger")
    assert {tensors[product.input[1]].dtype for product in products} == {np.dtype(np.int8)}
    assert sorted(tensors[product.input[1]].shape for product in products) == [(64, 64), (64, 64), (64, 100)]
    assert len(nodes(path, "MatMul")) == 2
    np.testing.assert_array_equal(tensors[nodes(path, "Gather")[0].input[0]], module.table.weight.detach().numpy())
    assert 0 < error(path, graph) < 0.03


def test_a_group_that_is_not_full(converted: Callable) -> None:
    """A summed axis of 40 has a full group and a part of one."""
    torch.manual_seed(0)
    _, path, graph = converted(nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 8)), {"x": rows(2, 3, 40)}, "int4")
    assert len(nodes(path, "MatMulNBits")) == 2
    assert error(path, graph) < 0.3


def swap_halves(packed: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (packed & 15) << 4 | packed >> 4, scales


def another_zero(packed: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes read against 7 instead of 8, which is the same as codes that are one higher."""
    low, high = np.minimum((packed & 15) + 1, 15), np.minimum((packed >> 4) + 1, 15)
    return high << 4 | low, scales


def next_scales(packed: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return packed, np.roll(scales, 1, axis=1)


def lost_group(packed: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return packed, np.concatenate([scales[:, :-1], np.zeros_like(scales[:, -1:])], axis=1)


@pytest.mark.parametrize("fault", [None, swap_halves, another_zero, next_scales, lost_group])
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_int4_rule_tells_broken_products_from_correct_ones(
    prepared: Graphs, workload_of: Callable, name: str, fault: Any
) -> None:
    """4-bit weights themselves pass the rule; products that misread them do not."""
    folder = prepared(name, precision="int4")
    model = onnx.load(folder / "model.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and fault is not None:
            packed, scales = (tensors[name] for name in node.input[1:3])
            changed = fault(numpy_helper.to_array(packed), numpy_helper.to_array(scales))
            for tensor, array in zip((packed, scales), changed, strict=True):
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, load_tensors(folder / "inputs.npz")), strict=True))
    found = check(outputs, load_tensors(folder / "reference.npz"), "int4", workload_of(name).task)
    assert found.passed == (fault is None), found


def test_names_and_shapes_are_kept(prepared: Graphs) -> None:
    """Every precision has the float32 file's inputs and outputs, in order, with their named dimensions."""
    for name in ("bert", "llama"):
        full = Manifest.read(prepared(name)).graphs
        for precision in ("float16", "int8", "int4"):
            for key, graph in Manifest.read(prepared(name, precision=precision)).graphs.items():
                assert [(t.name, t.shape) for t in graph.inputs] == [(t.name, t.shape) for t in full[key].inputs]
                assert [(t.name, t.shape) for t in graph.outputs] == [(t.name, t.shape) for t in full[key].outputs]


def test_every_precision_has_a_tool_and_a_rule(tmp_path: Path) -> None:
    """Each precision of a workload has a rule, and a tool unless only torch runs it; another is a defect of the caller."""
    assert set(RULES) == set(PRECISIONS) == {*TOOLS, "bfloat16"}
    module = nn.Linear(4, 4)
    export_float32(plain_graph(module, {"x": rows(2, 4)}), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="int3"):
        convert(tmp_path / "model.onnx", tmp_path / "int3.onnx", "int3")


def test_external_data_is_read(prepared: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose weights lie beside it, under several names as the cache's do, converts as one that holds them."""
    source = prepared("bert") / "model.onnx"
    monkeypatch.setattr("ipfs_accelerate_py.models.export.SHARD_BYTES", 50_000)
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(source), apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    (tmp_path / "apart.data.link").hardlink_to(tmp_path / "apart.data")
    ids = np.arange(12).reshape(2, 6)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for precision in ("float16", "int8", "int4"):
        for file in (source, apart):
            convert(file, tmp_path / f"{precision}-{file.name}", precision)
        found = [
            onnxruntime.InferenceSession(tmp_path / f"{precision}-{name}", providers=["CPUExecutionProvider"]).run(None, feeds)[
                0
            ]
            for name in ("model.onnx", "apart.onnx")
        ]
        np.testing.assert_array_equal(*found)
        assert len(list(tmp_path.glob(f"{precision}-apart*"))) > 1
