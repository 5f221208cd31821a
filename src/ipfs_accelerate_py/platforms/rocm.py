"""AMD GPUs, by torch's ROCm build, which answers to the names of torch.cuda."""

from __future__ import annotations

from .base import Available, Unavailable
from .extras import guarded
from .torch_session import CHOOSE_A_BUILD, TorchPlatform, import_torch, probe_gpus, tool_output


class Rocm(TorchPlatform):
    name = "rocm"
    torch_device = "cuda:0"

    @guarded
    def probe(self) -> Available | Unavailable:
        torch = import_torch()
        if torch.version.hip is None:
            return Unavailable(f"The installed torch {torch.__version__} is built without ROCm.", CHOOSE_A_BUILD)
        driver = tool_output("cat", "/sys/module/amdgpu/version")
        none_found = Unavailable(
            "torch finds no AMD GPU that it can use.", "Check with rocminfo that there is one and that its driver runs."
        )
        return probe_gpus(torch, {"hip": torch.version.hip, "driver": driver}, none_found)
