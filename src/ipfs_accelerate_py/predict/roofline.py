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
JOINED = ("elementwise", "activation")


@dataclass(frozen=True)
class PhaseTime:
    """Of one run: seconds of the operators that arithmetic bounds and of those that traffic does, and the ``kernels`` that are started.
    ``unknown_share`` is the share of them whose operators are not known."""

    arithmetic_s: float
    traffic_s: float
    kernels: int
    unknown_share: float


def phase_time(phase: PhaseCounts, ceilings: Ceilings, engine: str, precision: str) -> PhaseTime:
    """One run of ``phase`` on a device of these ceilings."""
    fusion = FUSIONS.get(engine, PLAIN)
    working_set = max(phase.weights_bytes, 1)
    arithmetic_s = traffic_s = 0.0
    kernels = unknown = 0
    for operator in phase.operators:
        inside = fusion.attention and operator.fused == "attention"
        starts, moves = _kept(operator, fusion, inside)
        arithmetic = operator.flops / ceilings.flops_per_s(precision, operator.flops) if _is_product(operator) else 0.0
        traffic = 0.0
        if moves:
            activations = operator.bytes_read - operator.weights_bytes + operator.bytes_written
            traffic = activations / ceilings.bytes_per_s(activations)
        # A token's pass goes through all weights, so they come from where all of them fit.
        traffic += operator.weights_bytes / ceilings.bytes_per_s(working_set)
        if arithmetic >= traffic:
            arithmetic_s += arithmetic * operator.count
        else:
            traffic_s += traffic * operator.count
        kernels += operator.count if starts else 0
        unknown += operator.count if operator.kind == "unknown" else 0
    share = unknown / max(1, phase.kernels)
    return PhaseTime(arithmetic_s, traffic_s, kernels, share)


def _is_product(operator: Operator) -> bool:
    return operator.kind in ("matmul", "conv")


def _kept(operator: Operator, fusion: Fusion, inside: bool) -> tuple[bool, bool]:
    """Whether the operator is started on its own, and whether it moves its data."""
    if inside:
        return operator.name.endswith("scores"), operator.name.endswith("context")
    if fusion.elementwise and operator.kind in JOINED:
        return False, False
    return True, True
