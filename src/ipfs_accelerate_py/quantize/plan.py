"""Which matrix gets how many bits: all the same, or a budget spent where an error costs most. Imports nothing heavy."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from . import architecture
from .formats import BITS, Format

# Bits a weight that the mixed plans of 2, 3 and 4 bits may take on average: 86, 79 and 72 % less than float16. 8 bits are not mixed.
DEFAULT_BUDGETS = {2: 16 * 0.14, 3: 16 * 0.21, 4: 16 * 0.28}
# How much worse the same relative error is in some matrices, from what is published: the values of attention and the projection
# back from the inner layer (llama.cpp's k-quants), what the logits are computed with, and the first and the last layer.
PRIORS = {"v_proj": 2.0, "down_proj": 1.5, "head": 4.0, "embedding": 1.0}
EDGE_PRIOR = 1.5


@dataclass(frozen=True)
class Plan:
    """The format of each quantised matrix by name, and of what the choice was made: uniform, prior or measured."""

    formats: Mapping[str, Format]
    sensitivity: str

    def stored_bytes(self, config: Mapping[str, Any]) -> int:
        """Exact bytes of all the tensors: quantised ones by their format, the others at float32."""
        total = 0
        for name, shape in architecture.shapes(config).items():
            form = self.formats.get(name)
            total += form.stored_bytes(*shape) if form else 4 * math.prod(shape)
        return total

    def bits_per_weight(self, config: Mapping[str, Any]) -> float:
        """Average over all the tensors, those in floating point included."""
        weights = sum(math.prod(shape) for shape in architecture.shapes(config).values())
        return 8 * self.stored_bytes(config) / weights


def matrices(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The matrices to be quantised with rows and columns, in the order of the forward pass."""
    return {
        name: (shape[0], shape[1]) for name, shape in architecture.shapes(config).items() if architecture.role(name) is not None
    }


def uniform(config: Mapping[str, Any], form: Format) -> Plan:
    return Plan({name: form for name in matrices(config)}, "uniform")


def prior(name: str, layers: int) -> float:
    """The factor on a matrix's relative error."""
    factor = PRIORS.get(architecture.role(name) or "", 1.0)
    return factor * (EDGE_PRIOR if architecture.layer_of(name) in (0, layers - 1) else 1.0)


def mixed(
    config: Mapping[str, Any],
    form: Format,
    budget: float,
    errors: Mapping[str, Mapping[int, float]] | None = None,
) -> Plan:
    """Widths of ``form.bits`` and more that take at most ``budget`` bits a weight on average over all the tensors.

    ``errors`` holds what each matrix costs by bits, measured (``sensitivity.measure``); without it every matrix is taken to have a
    quarter of the error with each bit more, times its prior. Greedy: the next step is always the one that saves most error
    a byte, by whichever wider format does. UserError for a budget below the least.
    """
    layers = int(config["num_hidden_layers"])
    sizes = matrices(config)
    weights = sum(math.prod(shape) for shape in architecture.shapes(config).values())
    least = uniform(config, form)
    left = math.floor(budget * weights / 8) - least.stored_bytes(config)
    if left < 0:
        raise UserError(
            f"A budget of {budget:g} bits a weight is too small: {form.bits} bits in groups of {form.group_size} take "
            f"{math.ceil(1000 * least.bits_per_weight(config)) / 1000:g} of this model, scales, zeros and norms included."
        )
    widths = [bits for bits in BITS if bits >= form.bits]
    chosen = dict(least.formats)
    curves = {}
    steps: list[_Step] = []
    for name, shape in sizes.items():
        curves[name] = {
            bits: (
                Format(bits, form.group_size).stored_bytes(*shape),
                errors[name][bits] if errors else prior(name, layers) * 4.0 ** (BITS[0] - bits),
            )
            for bits in widths
        }
        _push_next(steps, name, form.bits, curves[name])
    while steps:
        step = heapq.heappop(steps)
        if step.price <= left:
            left -= step.price
            chosen[step.name] = Format(step.bits, form.group_size)
            _push_next(steps, step.name, step.bits, curves[step.name])
    return Plan(chosen, "measured" if errors else "prior")


@dataclass(frozen=True, order=True)
class _Step:
    """A wider format for a matrix; the one that saves most error a byte comes first."""

    gain: float  # negative: error saved a byte
    name: str
    bits: int
    price: int


def _push_next(steps: list[_Step], name: str, bits: int, curve: Mapping[int, tuple[int, float]]) -> None:
    """The best next step of a matrix that has ``bits`` now; ``curve`` has bytes and error by bits."""
    size, error = curve[bits]
    wider = [
        _Step(-(error - less) / (more - size), name, wide, more - size) for wide, (more, less) in curve.items() if wide > bits
    ]
    if wider and min(wider).gain < 0:
        heapq.heappush(steps, min(wider))
