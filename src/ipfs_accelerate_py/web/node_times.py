"""The share of time on the provider that was asked for, beside its share of nodes: from what the page's profiler saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..platforms.base import Coverage

EVERY_NODE = "every node ran on the provider asked for"
UNTIMED = {
    "WebNNExecutionProvider": "WebNN runs its nodes as one that is only handed over: ONNX Runtime has no time of it",
    "WebGpuExecutionProvider": "neither the adapter nor the browser gives timestamps of kernels, or the model is too slow to be run again",
}
ONLY_GPU = "only the kernels of WebGPU are timed"
NO_COUNT = "the engine did not say which provider ran which node"


def time_facts(coverage: Coverage | None, times: Mapping[str, Any] | None) -> dict[str, Any]:
    """``coverage_time_share`` with ``coverage_time_from``, or ``coverage_time_unknown`` with the reason.

    ``times`` is what ``browser/src/node_times.ts`` gives: ``gpu_us`` of kernels by the GPU's timestamps, ``node_us`` of nodes by provider
    by the CPU's clock, ``wall_us`` of whole iterations; None where nothing was timed. The share is of the time of nodes: kernels on the
    GPU, over these and the nodes that other providers ran. Where no other provider ran any it is 1 without a clock. ``node_times``
    keeps what was seen, by iteration: how much of an iteration the kernels took tells how long the GPU waited.
    """
    if coverage is None:
        return {"coverage_time_unknown": NO_COUNT}
    facts: dict[str, Any] = {}
    if times is not None:
        count = times["iterations"]
        facts["node_times"] = {
            "iterations": count,
            "iteration_us": times["wall_us"] / count,
            "gpu_us": times["gpu_us"] / count if times["gpu_kernels"] else None,
            "gpu_kernels": times["gpu_kernels"] / count,
            "node_us": {provider: spent / count for provider, spent in times["node_us"].items()},
        }
    if coverage.share == 1:
        return {**facts, "coverage_time_share": 1.0, "coverage_time_from": EVERY_NODE}
    if times is None or not times["gpu_kernels"] or coverage.provider != "WebGpuExecutionProvider":
        return {**facts, "coverage_time_unknown": UNTIMED.get(coverage.provider, ONLY_GPU)}
    elsewhere = sum(spent for provider, spent in times["node_us"].items() if provider != coverage.provider)
    return {
        **facts,
        "coverage_time_share": times["gpu_us"] / (times["gpu_us"] + elsewhere) if times["gpu_us"] else 0.0,
        "coverage_time_from": "timestamps of the GPU, and the CPU's clock for the nodes elsewhere",
    }
