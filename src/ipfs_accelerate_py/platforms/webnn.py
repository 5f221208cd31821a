"""WebNN in a browser: the operating system's own neural-network API."""

from __future__ import annotations

import sys
from typing import Any

from ..spec import Workload
from .base import Unavailable
from .browser_platform import BrowserPlatform


class WebNN(BrowserPlatform):
    """Devices: ``cpu``, ``gpu``, ``npu``, which are hints to WebNN; ``default`` is cpu on Linux, where its only backend runs, else gpu."""

    name = "webnn"
    device_names = ("default", "cpu", "gpu", "npu")
    remedy = (
        "Use a Chromium that was built with a WebNN backend: Google Chrome, Microsoft Edge, or the headless shell "
        "(run: python -m ipfs_accelerate_py.web.install chromium-headless-shell)."
    )

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if reason := super().unsupported(workload, engine):
            return reason
        if workload.precision in ("int8", "int4") and sys.platform == "linux":
            # Asked of Chromium's TFLite backend, Linux' only one: its opSupportLimits have no uint4, which onnxruntime-web needs for 4-bit
            # weights, and of 8-bit products it left every MatMulInteger to the CPU.
            return (
                f"WebNN's backend on Linux has no {workload.precision} products (no uint4, no integer matmul): onnxruntime-web would "
                "compute them on the CPU, outside WebNN; float32 runs there."
            )
        return None

    def offered(self, facts: dict[str, Any]) -> str | Unavailable:
        found = facts["webnn"]
        if not found["available"]:
            return Unavailable(
                f"{facts['name']} {facts['version']} has no WebNN here: {found['reason'].rstrip('.')}.", self.remedy
            )
        return "WebNN on " + ", ".join(name for name, device in found["devices"].items() if device["available"])

    def session_options(self, device: str) -> dict[str, Any]:
        on_default = "cpu" if sys.platform == "linux" else "gpu"
        return {"device_type": on_default if device == "default" else device}
