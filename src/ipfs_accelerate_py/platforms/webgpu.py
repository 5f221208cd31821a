"""WebGPU in a browser: the GPU's adapter, or a software one where there is no GPU, and then it says so."""

from __future__ import annotations

from typing import Any

from ..spec import Workload
from .base import Unavailable
from .browser_platform import BrowserPlatform


class WebGPU(BrowserPlatform):
    """Devices: ``default``, ``high-performance`` and ``low-power`` (the browser's power preference), and ``software``."""

    name = "webgpu"
    device_names = ("default", "high-performance", "low-power", "software")
    remedy = "Install a Vulkan driver (Debian: sudo apt-get install mesa-vulkan-drivers) and a browser with WebGPU."

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if reason := super().unsupported(workload, engine):
            return reason
        if workload.precision == "int8":
            # Seen in the assignment of nodes, by onnxruntime-web 1.30: each DynamicQuantizeLinear and each MatMulInteger is the CPU's.
            return (
                "onnxruntime-web has no int8 products for WebGPU and would compute them on the CPU; int4 and float16 run there."
            )
        return None

    def offered(self, facts: dict[str, Any]) -> str | Unavailable:
        adapter = facts["webgpu"]
        if not adapter["available"]:
            return Unavailable(f"{facts['name']} {facts['version']} has no WebGPU here: {adapter['reason']}.", self.remedy)
        name = " ".join(filter(None, (adapter[key] for key in ("vendor", "architecture", "device", "description"))))
        kind = {True: "software adapter", False: "GPU", None: "adapter of unknown kind"}[adapter["software_adapter"]]
        return f"{kind} {name or '(name masked by the browser)'}"

    def session_options(self, device: str) -> dict[str, Any]:
        if device == "software":
            return {"software_adapter": True}
        return {} if device == "default" else {"power_preference": device}
