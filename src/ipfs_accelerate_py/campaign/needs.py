"""What preparing a model needs: how much memory, and whether a GPU must compute its reference. Nothing is loaded to know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UserError
from ..graph.description import describe
from ..models.prepare import exportable
from ..models.registry import CUSTOM_SIZE, ModelReference
from ..platforms.base import Available, Unavailable
from ..spec import Workload
from .preparation import Task

# Bytes of float32 weights from which a GPU that has room computes the reference: few hosts have as much memory to spare, and a
# processor reads all of it for each token.
LARGE_WEIGHTS_BYTES = 8_000_000_000
DEVICE_ROOM = 1.3  # times the weights: activations, the key-value cache and the attention scores of a prompt

# Beside the weights: imports of torch, transformers and the exporter (0.4 GB), and activations of a batch (benchmarks/preparation.py).
BESIDES_BYTES = 1_500_000_000


def weights_bytes(reference: ModelReference) -> int | None:
    """Of the float32 weights; None where the shape is not known without fetching the model, or is of no known architecture."""
    try:
        if reference.path is not None:
            return 4 * describe(reference.path).parameters
        if reference.size != CUSTOM_SIZE:
            return 4 * describe(reference.model_class, reference.size).parameters
    except UserError:  # it says for whom the operators are unknown; preparing such a model may well succeed
        return None
    return None


def memory_bytes(reference: ModelReference, tasks: Sequence[Task], weights: int | None) -> int | None:
    """Host memory that preparing these tasks of one model takes at its peak; None where it is not known."""
    if weights is None:
        return None
    return BESIDES_BYTES + round(max(_copies(task) if _on_host(reference, task) else 0 for task in tasks) * weights)


def least_bytes(reference: ModelReference, tasks: Sequence[Task], weights: int | None) -> int:
    """Host memory without which they cannot be prepared: the float32 weights once, where they are needed there."""
    return weights or 0 if any(_on_host(reference, task) for task in tasks) else 0


def device_bytes(tasks: Sequence[Task], weights: int | None) -> int:
    """The same of the GPU's memory."""
    return round(DEVICE_ROOM * (weights or 0)) if any(task.reference_device != "cpu" for task in tasks) else 0


def reference_device(work: Workload, exported: bool, weights: int | None, probed: Mapping[str, Available | Unavailable]) -> str:
    """torch's name of the device that computes the reference of ``work``: the CPU, but for a decoder of large weights that is not
    exported, where a CUDA GPU was found that has room for them."""
    gpu = probed.get("cuda")
    if weights is None or weights < LARGE_WEIGHTS_BYTES or not isinstance(gpu, Available):
        return "cpu"
    if work.new_tokens is None or (exported and exportable(work)):
        return "cpu"
    room = gpu.devices[0].facts["memory_bytes"]
    return "cuda:0" if room >= DEVICE_ROOM * weights else "cpu"


def _on_host(reference: ModelReference, task: Task) -> bool:
    """Whether the model passes through the host's memory. Synthetic weights for a reference on a GPU are made there."""
    return task.reference_device == "cpu" or reference.weights != "synthetic"


def _copies(task: Task) -> float:
    """How many times the float32 weights there are in the host's memory at the peak (``benchmarks/preparation.py`` prints it)."""
    if task.exported and exportable(task.workload):
        return 5.0  # the model, the exported graph, its serialised form, and the session that checks it
    return 2.6 if task.workload.mode == "training" else 1.4  # gradients; activations
