"""Peak memory of an inference: a device's own share, the weights as often as its engine holds them, caches and activations.

Six numbers a device, each with a prior that says what its engine does; ``benchmarks/prediction.py`` prints the error on models that were
left out. The formula for training memory is that of ``recommend.training_memory``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import ModelCounts
from ..graph.parts import parts_of
from ..lazy_numpy import np
from .kinds import GPU_PLATFORMS
from .roofline import FUSIONS, PLAIN

SIGMA = 0.05  # a relative error of this size weighs as much as a distance of one spread from a prior
# From here on the export puts the weights of a graph into files of their own (models/export.py, SHARD_BYTES).
GRAPH_BYTES = 1.5e9
MAPPED = ("torch", "openvino")  # on a processor these map a file of weights: what is never read of it is not in memory


@dataclass(frozen=True)
class Footprint:
    """``base_bytes``: the process with its engine, or the driver. The others multiply parts of the work: its ``weights``, those of graphs
    so large that they lie ``outside`` of the ONNX file (GRAPH_BYTES), the ``largest`` matrix of a product (which engines store again,
    transposed, where it is the embedding too), the most that must ``live`` at once of activations, and the key-value ``cache``.
    ``mapped``: weights that are never read do not count; ``scores``: those of attention live; ``graphs``: what two graphs of a model
    share is held twice."""

    base_bytes: float
    weights: float
    outside: float
    largest: float
    live: float
    cache: float
    mapped: bool
    scores: bool
    graphs: bool = True

    def peak(self, counts: ModelCounts) -> float:
        parts = _parts(counts, self)
        each = (self.base_bytes, self.weights, self.outside, self.largest, self.live, self.cache)
        return sum(number * part for number, part in zip(each, parts, strict=True))


def _parts(counts: ModelCounts, footprint: Footprint) -> tuple[float, ...]:
    """What the numbers multiply, in their order."""
    inside = outside = 0.0
    graphs = parts_of(counts) if footprint.graphs else {}
    for part in graphs.values() or (counts,):
        read = sum(phase.weights_bytes for phase in part.phases.values())
        if footprint.graphs and part.weights_bytes >= GRAPH_BYTES:
            outside += part.weights_bytes
        else:
            inside += min(part.weights_bytes, read) if footprint.mapped else part.weights_bytes
    live = live_bytes(counts, scores=footprint.scores)
    return 1.0, inside, outside, largest_weight_bytes(counts), live, counts.kv_cache_bytes


def live_bytes(counts: ModelCounts, *, scores: bool) -> int:
    """The most that one operator reads and writes of activations: the largest pair of tensors that must live at once. ``scores`` False:
    attention is fused and never writes its scores."""
    if scores:
        return counts.largest_activation_bytes
    return max(
        (
            operator.bytes_read - operator.weights_bytes + operator.bytes_written
            for phase in counts.phases.values()
            for operator in phase.operators
            if operator.kind != "softmax" and operator.fused != "attention"
        ),
        default=0,
    )


def largest_weight_bytes(counts: ModelCounts) -> int:
    """The largest weight that one operator reads: a buffer of its own on WebGPU."""
    return max((operator.weights_bytes for phase in counts.phases.values() for operator in phase.operators), default=0)


def prior(platform: str, engine: str) -> tuple[Footprint, tuple[float, ...]]:
    """What is believed of an engine before anything was measured, and the spread of each number: infinite where nothing is believed."""
    fused = FUSIONS.get(engine, PLAIN).attention
    if (
        platform == "webgpu"
    ):  # buffers alone, each rounded up to a size that is kept for the next; inputs and outputs of two operators
        return Footprint(0.0, 1.3, 1.3, 1.0, 1.5, 1.5, False, not fused), (2e6, 0.2, 0.2, 0.5, 0.7, 0.5)
    if platform in GPU_PLATFORMS:  # torch's allocator, with the 32 MiB of cuBLAS's workspace
        believed = Footprint(33_554_432.0, 1.0, 1.0, 0.0, 1.0, 1.0, False, not fused, graphs=False)
        return believed, (3e6, 0.05, 0.05, 0.05, 0.3, 0.3)
    weights = {"torch": 1.0, "onnxruntime": 2.5, "openvino": 1.5}.get(engine, 2.0)  # a file beside what was made of it
    outside = {"onnxruntime": 1.2, "openvino": 2.0}.get(engine, weights)  # the file is read in pieces, or mapped
    again = 0.0 if engine == "torch" else 1.0
    believed = Footprint(0.0, weights, outside, again, 1.0, 1.0, engine in MAPPED, not fused, graphs=engine != "torch")
    return believed, (float("inf"), 0.8, 0.2, 0.5, 0.5, 0.3)


def fit_memory(
    measured: Sequence[tuple[ModelCounts, float | None]], platform: str = "cpu", engine: str = "onnxruntime"
) -> Footprint | None:
    """From (counts, measured peak of an inference): least squares of the relative error, held to the engine's prior, no number below 0.
    None without a peak."""
    from scipy.optimize import nnls

    rows = [(counts, peak) for counts, peak in measured if peak]
    if not rows:
        return None
    believed, spread = prior(platform, engine)
    numbers = (believed.base_bytes, believed.weights, believed.outside, believed.largest, believed.live, believed.cache)
    pull = np.array([SIGMA / each for each in spread])  # 0 for an infinite spread
    design = np.array([[part / peak for part in _parts(counts, believed)] for counts, peak in rows])
    design = np.vstack([design, np.diag(pull)])
    scale = np.abs(design).max(0) + 1e-30
    found, _ = nnls(design / scale, np.append(np.ones(len(rows)), pull * np.array(numbers)))
    base, weights, outside, largest, live, cache = (float(value) for value in found / scale)
    return Footprint(base, weights, outside, largest, live, cache, believed.mapped, believed.scores, believed.graphs)
