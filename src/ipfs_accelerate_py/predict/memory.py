"""Peak memory of an inference: a device's own share, the weights as often as its engine holds them, caches and activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import ModelCounts
from ..lazy_numpy import np

COPIES, SPREAD = 1.5, 0.8  # of the weights, before anything was measured: a file beside what was made of it
LEAST_COPIES = 1.0


@dataclass(frozen=True)
class Footprint:
    """``base_bytes``: the process with its engine, or the driver. ``copies`` of the weights are held at the peak."""

    base_bytes: float
    copies: float

    def peak(self, counts: ModelCounts) -> float:
        return self.base_bytes + self.copies * counts.weights_bytes + moving_bytes(counts)


UNKNOWN = Footprint(0.0, COPIES)


def moving_bytes(counts: ModelCounts) -> float:
    """The cache twice, its old and its new values, and the largest operator with what stands beside it."""
    return 2.0 * counts.kv_cache_bytes + 2.0 * counts.largest_activation_bytes


def fit_memory(measured: Sequence[tuple[ModelCounts, float | None]]) -> Footprint | None:
    """From (counts, measured peak): least squares of the relative error, the copies held to COPIES by SPREAD. None without a peak."""
    rows = [(counts, peak) for counts, peak in measured if peak]
    if not rows:
        return None
    design = np.array([[1 / peak, counts.weights_bytes / peak] for counts, peak in rows])
    wanted = np.array([1 - moving_bytes(counts) / peak for counts, peak in rows])
    belief = 0.05 / SPREAD  # a relative error of 5 % weighs as much as a distance of SPREAD from COPIES
    design = np.vstack([design, [0.0, belief]])
    base, copies = np.linalg.lstsq(design, np.append(wanted, belief * COPIES), rcond=None)[0]
    if copies < LEAST_COPIES or base < 0:
        copies = max(LEAST_COPIES, float(copies))
        base = float(np.median([peak - copies * counts.weights_bytes - moving_bytes(counts) for counts, peak in rows]))
    return Footprint(max(0.0, float(base)), float(copies))
