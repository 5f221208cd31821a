"""NVIDIA GPUs, by torch's CUDA build."""

from __future__ import annotations

from .base import Available, Unavailable
from .extras import guarded
from .torch_session import CHOOSE_A_BUILD, TorchPlatform, import_torch, probe_gpus, tool_output


class Cuda(TorchPlatform):
    name = "cuda"
    torch_device = "cuda:0"

    @guarded
    def probe(self) -> Available | Unavailable:
        torch = import_torch()
        if torch.version.cuda is None:
            return Unavailable(f"The installed torch {torch.__version__} is built without CUDA.", CHOOSE_A_BUILD)
        driver = tool_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        none_found = Unavailable(
            "torch finds no NVIDIA GPU that it can use.", "Check with nvidia-smi that there is one and that its driver runs."
        )
        return probe_gpus(torch, {"cuda": torch.version.cuda, "driver": driver}, none_found)
