"""What a platform object tells of itself: what is in use and what that did, times, memory, kernels."""

from __future__ import annotations

import contextlib
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from ..errors import LaunchError
from .low_bit_model import LowBitModel
from .web_model import WGSL

if TYPE_CHECKING:
    from .platform import UnifiedWebPlatform
    from .runner import Opened

PASSES = "onnxruntime-web encodes many kernels into one pass, and WebGPU's timestamps are those of passes"
NOT_ASKED = "profile_kernels() was not called: it takes seconds and empties the cache of keys and values"


def feature_usage(platform: UnifiedWebPlatform) -> dict[str, Any]:
    opened = platform.runner.opened
    if opened is None:
        return {}
    served, choices = opened.served, opened.choices
    device = served.facts.get("device") or {}
    webgpu = opened.plan.platform == "webgpu" and opened.live is not None
    did = _did(opened)
    return {
        "platform": opened.plan.platform,
        "engine": served.engine,
        "precision": opened.plan.precision,
        "bits_per_weight": served.bits_per_weight,
        "threads": served.facts.get("threads"),
        "compute_shaders": webgpu,
        "adapter_features": device.get("features_used", []),
        "shader_precompilation": choices["precompilation"].on,
        "parallel_loading": choices["parallel_loading"].on,
        "audio_front_end": "GPU" if served.takes_recordings else "Python" if "audio" in platform.model.model_class.raw_inputs else None,
        "kv_cache": platform.model.generates,
        "kv_cache_bits": served.kv_cache_bits,
        "context_length": served.context_length,
        "model_sharding": False,
        "optimizations": {name: {**choice.to_dict(), "in_this_start": did.get(name)} for name, choice in choices.items()},
    }  # fmt: skip


def _did(opened: Opened) -> dict[str, Any]:
    """What each switch that is on did in this start, by the page's own count and clock; None where the engine does not tell."""
    facts, loading = opened.served.facts, opened.served.loading
    ahead, trial = facts.get("ahead_ms"), facts.get("readback")
    return {
        "precompilation": {"pipelines_ahead": len(ahead), "ahead_ms": sum(ahead)} if ahead else None,
        "parallel_loading": facts.get("loading"),
        "readback": {"used": trial["readback"], "plain_ns": trial["plain_ns"], "woken_ns": trial["woken_ns"]}
        if trial
        else None,
        "keep": {"profile": opened.live.page.profile, "bytes_from_cache": loading.bytes_from_cache} if opened.live else None,
    }


def loading_metrics(platform: UnifiedWebPlatform) -> dict[str, Any]:
    """Nothing that the page must be asked for: measuring its heap can take the browser seconds."""
    opened = platform.runner.opened
    loading = opened.served.loading if opened else None
    return {
        "provenance": platform.runner.provenance,
        "fetch_ms": loading.fetch_ms if loading else None,
        "upload_ms": loading.upload_ms if loading else None,
        "compile_ms": loading.compile_ms if loading else None,
        "bytes": loading.bytes if loading else None,
        "bytes_fetched": loading.bytes_fetched if loading else None,
        "bytes_from_cache": loading.bytes_from_cache if loading else None,
    }


def performance_metrics(platform: UnifiedWebPlatform) -> dict[str, Any]:
    from ..measure.memory import tree_memory

    opened = platform.runner.opened
    live = opened.live if opened and opened.live and opened.live.healthy else None
    page_memory = opened.served.memory() if opened and live else {}
    device = (opened.served.facts.get("device") or {}) if opened else {}
    tree = tree_memory(live.page.process.process_ids()) if live else None
    held = tree.proportional_bytes if tree and tree.processes else None
    traffic = live.page.bridge.traffic if live else None
    parts = ("gpu_buffer_bytes", "gpu_buffer_peak_bytes", "js_heap_bytes", "js_heap_reason")
    return {
        **platform.metrics.times(),
        "provenance": opened.served.provenance if opened else None,
        "memory_usage_mb": held / 1e6 if held is not None else None,
        "memory": {"browser_processes_bytes": held, **{key: page_memory.get(key) for key in parts}},
        "loading": loading_metrics(platform),
        "shaders": page_memory.get("shaders") or {"count": None, "compiled_ms": None, "cache": None},
        "kernels": platform.metrics.kernels or {"step": None, "reason": _no_kernels(opened)},
        "bridge": {
            "bytes_sent": traffic.bytes_sent + traffic.file_bytes_sent if traffic else None,
            "bytes_received": traffic.bytes_received + traffic.file_bytes_received if traffic else None,
            "large_tensors_by": live.page.bridge.large_tensors_by if live else None,
            "model_requests": live.page.bridge.site.model_requests if live else None,
        },
        "failures": {which: count for (what, which), count in platform.metrics.counts.items() if what == "failures"},
        "recoveries": {which: count for (what, which), count in platform.metrics.counts.items() if what == "recoveries"},
        "adapter": device.get("description") or device.get("architecture"),
        "feature_usage": feature_usage(platform),
    }  # fmt: skip


def _no_kernels(opened: Opened | None) -> str:
    if opened is None:
        return "no model is open"
    if opened.live is None:
        return "no GPU runs in a simulation"
    if opened.plan.platform != "webgpu":
        return f"{opened.plan.platform} has no timestamps of its kernels"
    return NOT_ASKED if opened.served.engine == WGSL else PASSES


def kernels(opened: Opened, context_length: int) -> dict[str, Any]:
    """The profile of a decoding step; ``step`` None and the reason where there is none. Raises LaunchError where the page fails."""
    if not isinstance(opened.served, LowBitModel):
        return {"step": None, "reason": _no_kernels(opened)}
    try:
        found = opened.served.profile(context_length)
    except LaunchError as error:
        if error.error_class != "unsupported":
            raise
        return {"step": None, "reason": str(error)}
    step = [
        {"label": part["label"], "dispatches": part["dispatches"], "ms": median(part["ns"]) / 1e6, "bytes": part.get("bytes")}
        for part in (*found["stages"], *found["products"])
    ]
    software = (opened.served.facts["device"] or {}).get("software_adapter")
    return {"step": step, "reason": None, "context_length": found["length"], "rounds": len(found["stages"][0]["ns"]),
            "software_adapter": software, "provenance": "measured"}  # fmt: skip


def prometheus(platform: UnifiedWebPlatform) -> str:
    """Asks the page for its memory, so it may wait for a pass that runs; not to be called on the thread that serves the page."""
    opened = platform.runner.opened
    live = opened.live if opened and opened.live and opened.live.healthy else None
    traffic = live.page.bridge.traffic if live else None
    memory: dict[str, Any] = {}
    if opened and live:
        with contextlib.suppress(
            LaunchError
        ):  # of a page that failed meanwhile there is nothing to tell; its failure is counted
            memory = opened.served.memory()
    labels = {"model": platform.model.name, "platform": platform.runner.plan.platform, "browser": platform.runner.plan.browser}
    gauges = {
        "bridge_sent_bytes": traffic.bytes_sent + traffic.file_bytes_sent if traffic else None,
        "bridge_received_bytes": traffic.bytes_received + traffic.file_bytes_received if traffic else None,
        "initialization_seconds": platform.metrics.initialization_ms and platform.metrics.initialization_ms / 1e3,
        "js_heap_bytes": memory.get("js_heap_bytes"),
        "gpu_buffer_bytes": memory.get("gpu_buffer_bytes"),
    }
    seconds: Counter[str] = Counter()
    for part in (platform.metrics.kernels or {}).get("step") or ():
        seconds[part["label"]] += part["ms"] / 1e3  # matrices of several widths share a label
    return platform.metrics.prometheus(labels, gauges, seconds)
