"""WebAssembly: the browser's own CPU path, which everything else falls back to."""

from __future__ import annotations

from typing import Any

from ..spec import Workload
from .base import Unavailable
from .browser_platform import BrowserPlatform


class Wasm(BrowserPlatform):
    name = "wasm"
    # Chromium runs wasm from its baseline compiler first, at half the speed and evenly so, while the optimising one works in the
    # background: up to 2 s on two cores (benchmarks/wasm_threads.py).
    least_warm_up_s = 3.0

    def offered(self, facts: dict[str, Any]) -> str | Unavailable:
        features = facts["wasm"]
        if not features["simd"]:
            return Unavailable(f"{facts['name']} {facts['version']} has no WebAssembly SIMD.", "Update the browser.")
        shown = [name.replace("_", " ") for name in ("threads", "relaxed_simd", "memory64", "jspi") if features[name]]
        return f"{facts['hardware_concurrency']} cores, SIMD{''.join(', ' + name for name in shown)}"

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if reason := super().unsupported(workload, engine):
            return reason
        if workload.precision == "float16":
            return "WebAssembly has no float16: onnxruntime-web would compute in float32; float16 needs webgpu or webnn."
        return None

    def session_options(self, device: str) -> dict[str, Any]:
        return {}
