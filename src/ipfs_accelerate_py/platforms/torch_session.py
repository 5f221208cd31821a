"""PyTorch on any of its devices: what the cpu, cuda, rocm and mps platforms share."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any, ClassVar

import numpy as np

from ..spec import Workload
from .base import Available, Device, Memory, OpenOptions, Platform, Unavailable
from .extras import load_extra
from .graph_session import GraphSession, unsupported_by

DTYPES = ("float32", "float16", "bfloat16")
CHOOSE_A_BUILD = "Take the command for this machine from https://pytorch.org/get-started/locally/."


def import_torch() -> Any:
    return load_extra("torch", "torch")


def torch_unsupported(workload: Workload) -> str | None:
    if workload.precision not in DTYPES:
        return f"The torch engine runs {', '.join(DTYPES[:-1])} and {DTYPES[-1]}; {workload.precision} needs onnxruntime or openvino."
    if workload.mode == "training":
        from ..models.registry import model_classes

        least = model_classes()[workload.model_class].least_training_batch
        if workload.batch_size < least:
            return f"The loss of {workload.model_class} compares the items of a batch: training needs --batch-sizes of {least} or more."
    return None


def open_torch(workload: Workload, device: str, options: OpenOptions) -> TorchSession:
    """The session of a workload, by its mode. ``device`` is torch's name of one."""
    if workload.mode == "inference":
        return TorchSession(workload, device, options)
    from .training import TorchTrainingSession

    return TorchTrainingSession(workload, device, options)


class TorchSession(GraphSession):
    """The modules of the exported graphs, run eagerly; ``device`` is a torch device such as ``cpu``, ``cuda:0`` or ``mps``."""

    engine = "torch"
    accelerator: Any = None  # torch.cuda or torch.mps

    def start_engine(self) -> None:
        self.torch = import_torch()
        _ = load_extra("transformers", "torch").PreTrainedModel  # transformers imports its parts when they are named
        self.torch.set_num_threads(self.threads)
        self.accelerator = {"cuda": self.torch.cuda, "mps": self.torch.mps}.get(self.device.partition(":")[0])
        self.dtype = getattr(self.torch, self.workload.precision)
        if self.device.startswith("cuda"):
            # cuDNN convolves float32 in TF32 (10 bits of mantissa) unless told not to.
            self.torch.backends.cudnn.allow_tf32 = False
            self.torch.backends.cuda.matmul.allow_tf32 = False
            self.torch.cuda.init()
            self.torch.cuda.set_device(self.device)

    def load_graphs(self) -> None:
        from ..models.prepare import modules

        self.start_peak()
        self.graphs = modules(
            self.folder, self.device, self.workload.precision, rows=1
        )  # their names are wanted, not the values
        for graph in self.graphs.values():
            graph.module.eval()

    def compile_graphs(self) -> None:
        """Nothing: the modules run eagerly."""

    def run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        exported = self.graphs[graph]
        with self.torch.inference_mode():
            outputs = exported.module(*(feeds[name] for name in exported.inputs))
        return dict(zip(exported.outputs, outputs if isinstance(outputs, tuple | list) else (outputs,), strict=True))

    def upload(self, array: np.ndarray) -> Any:
        tensor = self.torch.from_numpy(array)
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.torch.zeros(shape, dtype=self.dtype, device=self.device)

    def download(self, tensor: Any) -> np.ndarray:
        if tensor.dtype == self.torch.bfloat16:  # which NumPy lacks
            tensor = tensor.float()
        return tensor.cpu().numpy()

    def synchronize(self) -> None:
        if self.accelerator is not None:
            self.accelerator.synchronize()

    def memory(self) -> Memory:
        """Weights as they lie in memory, each counted once. Metal has no counter of the peak."""
        weights = {
            tensor.data_ptr(): tensor.nbytes for graph in self.graphs.values() for tensor in graph.module.state_dict().values()
        }
        return Memory(sum(weights.values()), self.peak_bytes())

    def start_peak(self) -> None:
        if self.device.startswith("cuda"):
            self.torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int | None:
        return self.torch.cuda.max_memory_allocated(self.device) if self.device.startswith("cuda") else None

    def close(self) -> None:
        self.graphs = {}
        if self.accelerator is not None:
            self.accelerator.empty_cache()

    def facts(self) -> dict[str, Any]:
        facts = {**super().facts(), "torch": self.torch.__version__, "dtype": self.workload.precision}
        if self.manifest.facts["torch_folder"] is None:
            facts["weights"] = "made from their seed on the device: the load phase reads no file"
        if self.device.startswith("cuda"):
            facts["device_name"] = self.torch.cuda.get_device_name(self.device)
        return facts


class TorchPlatform(Platform):
    """A platform whose only engine is torch. ``torch_device`` is what torch calls its default device."""

    engines: ClassVar[tuple[str, ...]] = ("torch",)
    torch_device: ClassVar[str]

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        return unsupported_by(self.name, self.engines, engine) or torch_unsupported(workload)

    def open(self, workload: Workload, device: str, options: OpenOptions) -> TorchSession:
        return open_torch(workload, self.torch_device if device == "default" else device, options)


def probe_gpus(torch: Any, facts: dict[str, Any], none_found: Unavailable) -> Available | Unavailable:
    """The GPUs of torch.cuda, which is also torch's interface to ROCm."""
    if not torch.cuda.is_available():
        return none_found
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        details: dict[str, Any] = {"memory_bytes": properties.total_memory, "multiprocessors": properties.multi_processor_count}
        if torch.version.hip:
            details["architecture"] = properties.gcnArchName
        else:
            details["compute_capability"] = f"{properties.major}.{properties.minor}"
        devices.append(Device(f"cuda:{index}" if index else "default", properties.name, details))
    return Available(tuple(devices), ("torch",), {"torch": torch.__version__, **facts})


def tool_output(*command: str) -> str | None:
    """First line that a vendor's tool prints, None where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return result.stdout.splitlines()[0].strip() if result.returncode == 0 and result.stdout.strip() else None
