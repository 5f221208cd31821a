"""Layouts of training: which exist, what each sends, and how long a step takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipfs_accelerate_py.predict import Interval
from ipfs_accelerate_py.recommend.collectives import Communication, Line
from ipfs_accelerate_py.recommend.layout import Layout, degrees
from ipfs_accelerate_py.recommend.network import network
from ipfs_accelerate_py.recommend.places import Place
from ipfs_accelerate_py.recommend.request import Request
from ipfs_accelerate_py.recommend.stacks import Shape, Stack
from ipfs_accelerate_py.recommend.step_time import communication_seconds, compute_seconds, step_seconds
from ipfs_accelerate_py.recommend.training import layouts

STACK = Stack(layers=4, tokens=10, hidden=8, heads=4, feed_forward=32)
SHAPE = Shape(parameters=4_000_000, stacks=(STACK,))
LINES = {"all_reduce": Line(0.0, 2e6), "all_gather": Line(0.0, 4e6), "reduce_scatter": Line(0.0, 8e6)}  # bytes/s
GLOO = Communication(2, LINES, "measured", "gloo", "cpu")


def test_every_layout_uses_all_devices():
    """Data, sharded, tensor and pipeline layouts of four devices, each once, and their products."""
    found = list(degrees(SHAPE, 4))
    assert all(layout.devices == 4 for layout in found)
    assert len(set(found)) == len(found)
    assert {layout.strategy for layout in found} == {"ddp", "fsdp", "zero-1", "zero-2", "zero-3", "tensor", "pipeline"}
    assert any(layout.tensor == layout.pipeline == 2 for layout in found)


def test_degrees_that_do_not_divide_are_left_out():
    """Three devices cannot share four heads; five cannot be stages of four layers; two stacks are no pipeline."""
    assert not any(layout.tensor > 1 for layout in degrees(SHAPE, 3))
    assert not any(layout.pipeline == 5 for layout in degrees(SHAPE, 5))
    assert not any(layout.pipeline > 1 for layout in degrees(replace(SHAPE, stacks=(STACK, STACK)), 4))
    assert [layout.strategy for layout in degrees(SHAPE, 1)] == ["single"]


def test_every_layout_has_the_same_step():
    """Micro-batch, accumulation and data ranks always make batch_size x gpu_count items."""
    request = Request(model="x", mode="training", batch_size=6, gpu_count=4)
    found = list(layouts(SHAPE, request, "float32"))
    assert {layout.micro_batch * layout.accumulation * layout.data for layout in found} == {24}
    assert {layout.micro_batch for layout in found if layout.strategy == "ddp"} == {1, 2, 3, 6}
    assert all(layout.micro_batch >= 2 for layout in layouts(SHAPE, request, "float32", least_batch=2))


def test_what_each_strategy_sends():
    """By hand, at float32 and 16 MB of weights: DDP reduces once, ZeRO-3 gathers twice and scatters once each micro-step."""
    plain = Layout(strategy="ddp", data=2, precision="float32", accumulation=3)
    assert communication_seconds(SHAPE, plain, GLOO) == pytest.approx(16 / 2)
    assert communication_seconds(SHAPE, replace(plain, strategy="fsdp"), GLOO) == pytest.approx(3 * (2 * 16 / 4 + 16 / 8))
    half = replace(plain, strategy="zero-1", precision="bfloat16")
    assert communication_seconds(SHAPE, half, GLOO) == pytest.approx(8 / 8 + 8 / 4)


def test_tensor_parallelism_reduces_four_times_a_layer():
    """4 x layers x batch x tokens x width x 4 bytes through the all-reduce, each micro-step."""
    layout = Layout(strategy="tensor", tensor=2, micro_batch=5, accumulation=3, precision="float32")
    expected = 3 * 4 * 4 * (5 * 10 * 8 * 4) / 2e6
    assert communication_seconds(SHAPE, layout, GLOO) == pytest.approx(expected)


def test_a_pipeline_idles_by_its_bubble():
    """(p - 1) / m more than an even split, and checkpointing a third more; kernels' starts are not split by a tensor degree."""
    step = Interval(1.0, 0.5, 2.0)
    assert compute_seconds(Layout(strategy="pipeline", pipeline=4, accumulation=8), step).value == pytest.approx(8 / 4 * 11 / 8)
    assert compute_seconds(Layout(strategy="single", checkpointing=True), step).value == pytest.approx(4 / 3)
    assert compute_seconds(Layout(strategy="tensor", tensor=2), step, floor=0.5).value == pytest.approx(0.75)


def test_gloo_hides_nothing_and_a_datasheet_is_not_trusted():
    """On the CPU all communication counts; by a datasheet the range goes from all hidden to twice what the link promises."""
    layout, step = Layout(strategy="ddp", data=2, precision="float32"), Interval(100.0, 90.0, 110.0)
    assert step_seconds(SHAPE, layout, step, GLOO).communication == Interval(8.0, 8.0, 8.0)
    promised = replace(GLOO, backend="nccl", source="datasheet")
    assert step_seconds(SHAPE, layout, step, promised).communication == Interval(4.0, 0.0, 16.0)


def test_links_of_known_gpus(monkeypatch, tmp_path):
    """An A100 has NVLink by its datasheet: 300 GB/s each way; a ring of four sends 3/4 of a tensor to gather it. Without a row: PCIe."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))
    by_driver = network(Place(platform="cuda", engine="torch", description="NVIDIA A100-SXM4-80GB"), 4)
    assert by_driver is not None and by_driver.source == "datasheet" and "NVLink" in by_driver.device
    card = network(Place(platform="cuda", engine="torch", description="NVIDIA A100-PCIE-40GB"), 4)
    assert card is not None and card.device.startswith("PCIe 4.0")
    links = network(Place(platform="cuda", engine="torch", description="NVIDIA A100 40 GB", known="datasheet"), 4)
    assert links is not None and links.source == "datasheet" and "NVLink" in links.device
    assert links.lines["all_gather"].bytes_per_s == pytest.approx(300e9 * 4 / 3)
    assert links.lines["all_reduce"].bytes_per_s == pytest.approx(150e9 * 4 / 3)
    unknown = network(Place(platform="cuda", engine="torch", description="Some GPU", known="datasheet"), 2)
    assert unknown is not None and "assumed" in unknown.device and unknown.source == "assumed"
    assert network(Place(platform="cpu", engine="torch"), 1) is None
