"""Peak memory of inference, by part: weights, key-value cache, activations, and what the engine takes besides.

Weights and cache are exact counts. How many copies of the weights an engine holds while it loads, and what its process takes without a
model, are fitted to the shipped reference measurements (benchmarks/selection.py --memory prints the errors): good for "does it fit",
not for the last ten percent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..graph import ModelCounts
from ..graph.parts import parts_of
from ..predict.memory import GRAPH_BYTES, live_bytes

# WebAssembly memories are addressed with 32 bits (https://www.w3.org/TR/wasm-core-2/, limits of memories: 65536 pages of 64 KiB).
WASM_BYTES = 2**32
# What every WebGPU adapter must allow (https://www.w3.org/TR/webgpu/#limits, maxStorageBufferBindingSize).
LEAST_BINDING_BYTES = 134_217_728


@dataclass(frozen=True)
class Engine:
    """``copies`` of the weights at the peak, ``base_bytes`` without any model; ``scores`` tells whether attention scores are written.
    ``outside``: copies of weights in files of their own, which the export writes from GRAPH_BYTES on; None for as many."""

    copies: float
    base_bytes: int
    scores: bool = True
    outside: float | None = None


HOST = {
    "torch": Engine(1.0, 400_000_000),
    "onnxruntime": Engine(3.0, 100_000_000, outside=1.3),
    "openvino": Engine(2.0, 130_000_000),
    "onnxruntime-web": Engine(4.0, 1_100_000_000),  # all processes of the browser
    "wgsl": Engine(2.0, 1_100_000_000),
}
# A GPU's: torch's allocator has cuBLAS's 32 MiB besides, and a context outside of it, 0.3 to 0.6 GB, which is assumed.
DEVICE = {
    "torch": Engine(1.0, 600_000_000 + 33_554_432, scores=False),
    "onnxruntime-web": Engine(1.5, 0),
    "wgsl": Engine(1.0, 0),
}


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes, at their peak. ``place`` is host or device."""

    place: str
    weights: int
    kv_cache: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.workspace

    def to_dict(self) -> dict[str, Any]:
        return {key if key == "place" else f"{key}_bytes": value for key, value in asdict(self).items()} | {
            "total_bytes": self.total
        }


def inference_memory(counts: ModelCounts, engine: str, place: str) -> InferenceMemory:
    """Of one process with the model. ``place`` device is for a GPU with a memory of its own."""
    known = (DEVICE if place == "device" else HOST)[engine]
    live = live_bytes(counts, scores=known.scores)
    parts = parts_of(counts) if engine != "torch" else {}  # torch loads a model whole
    graphs = [part.weights_bytes for part in parts.values()] or [counts.weights_bytes]
    held = sum(size * (known.outside if known.outside and size >= GRAPH_BYTES else known.copies) for size in graphs)
    return InferenceMemory(
        place=place,
        weights=counts.weights_bytes,
        kv_cache=counts.kv_cache_bytes,
        activations=live,
        workspace=known.base_bytes + round(held - counts.weights_bytes),
    )
