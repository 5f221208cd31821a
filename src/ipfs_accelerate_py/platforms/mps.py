"""Apple GPUs, by torch's Metal Performance Shaders."""

from __future__ import annotations

import platform

from .base import Available, Device, Unavailable
from .extras import guarded
from .processor import processor_facts
from .torch_session import CHOOSE_A_BUILD, TorchPlatform, import_torch


class Mps(TorchPlatform):
    name = "mps"
    torch_device = "mps"

    @guarded
    def probe(self) -> Available | Unavailable:
        if platform.system() != "Darwin":
            return Unavailable(f"Metal is part of macOS; this is {platform.system()}.")
        torch = import_torch()
        if not torch.backends.mps.is_built():
            return Unavailable(f"The installed torch {torch.__version__} is built without Metal.", CHOOSE_A_BUILD)
        if not torch.backends.mps.is_available():
            return Unavailable("torch finds no GPU that Metal can use.", "Metal needs macOS 14 or later and Apple silicon.")
        device = Device("default", f"{processor_facts()['model']} GPU", {"memory_bytes": torch.mps.recommended_max_memory()})
        return Available((device,), self.engines, {"torch": torch.__version__, "macos": platform.mac_ver()[0]})
