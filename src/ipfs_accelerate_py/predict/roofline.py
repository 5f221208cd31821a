"""Seconds of a phase by the roofline (Williams et al., 2009, https://doi.org/10.1145/1498765.1498785): each operator takes the longer of
its arithmetic and its traffic at the device's ceilings. What an engine fuses moves no data between and is started once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Operator, PhaseCounts
from .ceilings import Ceilings


@dataclass(frozen=True)
class Fusion:
    """What an engine does as one. ``attention``: scores, softmax and context; ``elementwise``: additions, activations and norms, with
    the product before them."""

    attention: bool
    elementwise: bool


FUSIONS = {
    "torch": Fusion(attention=True, elementwise=False),  # scaled_dot_product_attention; all else eager
    "onnxruntime": Fusion(attention=False, elementwise=True),
    "onnxruntime-web": Fusion(attention=False, elementwise=True),
    "openvino": Fusion(attention=True, elementwise=True),
    "wgsl": Fusion(attention=True, elementwise=True),
}
PLAIN = Fusion(attention=False, elementwise=False)
# Bound by arithmetic: products with weights, of activations with each other, and convolutions; products of few rows (below) whatever bounds
# them. Bound by traffic: weights that are read, or streamed from a farther memory; activations that are moved, computed on (softmax, norms,
# activations), or placed (gathered, copied, put into a cache).
WORK = ("linear", "product", "conv", "few_rows", "weights", "streamed", "moved", "computed", "placed")
# Products of so few rows keep neither the arithmetic busy nor are they free beside the reading of their weights.
FEW_ROWS = 16
BEYOND = 1.5  # times the largest working set that the bandwidth was measured at: weights come from a farther memory
MOVES = {"softmax": "computed", "norm": "computed", "activation": "computed", "gather": "placed", "copy": "placed"}
JOINED = ("elementwise", "activation")


@dataclass(frozen=True)
class PhaseTime:
    """Of one run: seconds of each kind of work (WORK), and the ``kernels`` that are started. ``unknown_share`` is the share of them whose
    operators are not known."""

    linear_s: float
    product_s: float
    conv_s: float
    few_rows_s: float
    weights_s: float
    streamed_s: float
    moved_s: float
    computed_s: float
    placed_s: float
    kernels: int
    unknown_share: float


def phase_time(phase: PhaseCounts, ceilings: Ceilings, engine: str, precision: str) -> PhaseTime:
    """One run of ``phase`` on a device of these ceilings."""
    fusion = FUSIONS.get(engine, PLAIN)
    working_set = max(phase.weights_bytes, 1)
    seconds = dict.fromkeys(WORK, 0.0)
    reading = "streamed" if working_set > BEYOND * ceilings.bandwidth[-1][0] else "weights"
    kernels = unknown = 0
    for operator in phase.operators:
        inside = fusion.attention and operator.fused == "attention"
        starts, moves = _kept(operator, fusion, inside)
        arithmetic = operator.flops / ceilings.flops_per_s(precision, operator.flops) if _is_product(operator) else 0.0
        moved = 0.0
        if moves:
            activations = operator.bytes_read - operator.weights_bytes + operator.bytes_written
            moved = activations / ceilings.bytes_per_s(activations)
        # A token's pass goes through all weights, so they come from where all of them fit.
        weights = operator.weights_bytes / ceilings.bytes_per_s(working_set)
        few = operator.weights_bytes > 0 and 1 < _rows(operator) <= FEW_ROWS
        if few:
            seconds["few_rows"] += arithmetic * operator.count
        if arithmetic >= weights + moved and not few:
            seconds[_kind(operator)] += arithmetic * operator.count
        else:
            seconds[reading] += weights * operator.count
            seconds[MOVES.get(operator.kind, "moved")] += moved * operator.count
        kernels += operator.count if starts else 0
        unknown += operator.count if operator.kind == "unknown" else 0
    share = unknown / max(1, phase.kernels)
    return PhaseTime(**{f"{kind}_s": value for kind, value in seconds.items()}, kernels=kernels, unknown_share=share)


def _rows(operator: Operator) -> int:
    return operator.shape[1] if operator.shape else 1


def _kind(operator: Operator) -> str:
    return "conv" if operator.kind == "conv" else "linear" if operator.weights_bytes else "product"


def _is_product(operator: Operator) -> bool:
    return operator.kind in ("matmul", "conv")


def _kept(operator: Operator, fusion: Fusion, inside: bool) -> tuple[bool, bool]:
    """Whether the operator is started on its own, and whether it moves its data."""
    if inside:
        return operator.name.endswith("scores"), operator.name.endswith("context")
    if fusion.elementwise and operator.kind in JOINED:
        return False, False
    return True, True
