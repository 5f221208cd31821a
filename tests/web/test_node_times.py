"""The share of time on the provider that was asked for: from what was seen, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from product_model import WORKLOAD, require

from ipfs_accelerate_py.models.export import describe
from ipfs_accelerate_py.models.prepared import Manifest
from ipfs_accelerate_py.platforms.base import Coverage, OpenOptions
from ipfs_accelerate_py.web.node_times import EVERY_NODE, NO_COUNT, UNTIMED, time_facts
from ipfs_accelerate_py.web.page_session import PageSession

WEBGPU, WEBNN, CPU = "WebGpuExecutionProvider", "WebNNExecutionProvider", "CPUExecutionProvider"
WIDTH = 64


def seen(gpu_us: float, cpu_us: float, kernels: int = 4) -> dict[str, Any]:
    """Two iterations in which the GPU's provider handed over work for 500 us."""
    return {
        "iterations": 2,
        "wall_us": 4000.0,
        "gpu_us": gpu_us,
        "gpu_kernels": kernels,
        "node_us": {WEBGPU: 500, CPU: cpu_us},
    }


def test_the_share_is_of_the_time_of_nodes() -> None:
    """300 us on the GPU and 100 us of nodes on the CPU are 75 %; handing over counts for neither side."""
    facts = time_facts(Coverage(WEBGPU, {WEBGPU: 9, CPU: 1}), seen(300, 100))
    assert facts["coverage_time_share"] == pytest.approx(0.75)
    assert facts["node_times"] == {
        "iterations": 2,
        "iteration_us": 2000.0,
        "gpu_us": 150.0,
        "gpu_kernels": 2.0,
        "node_us": {WEBGPU: 250.0, CPU: 50.0},
    }


def test_where_every_node_ran_on_it_no_clock_is_needed() -> None:
    """100 %, with what was seen beside it where something was."""
    for provider in (WEBGPU, WEBNN, CPU):
        facts = time_facts(Coverage(provider, {provider: 3}), None)
        assert facts == {"coverage_time_share": 1.0, "coverage_time_from": EVERY_NODE}
    assert time_facts(Coverage(WEBGPU, {WEBGPU: 3}), seen(10, 0))["node_times"]["gpu_us"] == 5.0


def test_what_gives_no_time_says_why() -> None:
    """WebNN's one node, a GPU without timestamps, an engine that does not count: a reason each and no share."""
    for facts, reason in (
        (time_facts(Coverage(WEBNN, {WEBNN: 9, CPU: 1}), None), UNTIMED[WEBNN]),
        (time_facts(Coverage(WEBGPU, {WEBGPU: 9, CPU: 1}), seen(0, 100, kernels=0)), UNTIMED[WEBGPU]),
        (time_facts(Coverage(WEBGPU, {WEBGPU: 9, CPU: 1}), None), UNTIMED[WEBGPU]),
        (time_facts(None, None), NO_COUNT),
    ):
        assert facts["coverage_time_unknown"] == reason and "coverage_time_share" not in facts


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A product, which WebGPU runs, and the determinant of it, for which it has no kernel."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"]), helper.make_node("Det", ["y"], ["determinant"])],
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("y", [WIDTH, WIDTH]), ("determinant", []))
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    Manifest("mixed", "synthetic:0", "float32", {}, {"model": describe(tmp_path / "model.onnx")}, 0, 0).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_a_node_on_the_cpu_takes_its_share_of_the_time(key: str, mixed: Path) -> None:
    """Two providers, kernels with times where the browser has timestamps, and a reason where it has none."""
    inputs = {"x": np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5}
    options = OpenOptions(folder=mixed, engine="onnxruntime-web", browser=key, inputs=inputs)
    session = PageSession(require(key), "webgpu", WORKLOAD, options)
    try:
        session.timed_phases()
        _, outputs = session.timed_first()
        np.testing.assert_allclose(outputs["determinant"], np.linalg.det(inputs["x"] @ inputs["x"]), rtol=1e-2)
        coverage = session.coverage()
        assert coverage is not None and coverage.share < 1 and coverage.nodes[CPU] == 1
        facts = session.time_coverage(coverage)
        print(facts, session.facts()["device"]["features_used"])
        assert facts["node_times"]["node_us"][CPU] > 0
        if "timestamp-query" in session.facts()["device"]["features_used"]:
            assert 0 <= facts["coverage_time_share"] < 1
            assert facts["node_times"]["gpu_kernels"] >= 1
        else:
            assert facts["coverage_time_unknown"] == UNTIMED[WEBGPU]
    finally:
        session.close()
