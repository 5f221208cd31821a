"""Solvers without calibration: plain rounding, rounding with a search, and half-quadratic quantisation.

Each fits a grid (``grid.py``) to groups of weights. ``quantize_matrix`` applies one chunk by chunk of rows, so that the
memory needed beside the matrix is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .formats import Format, QuantizedMatrix
from .grid import Grid, least_squares, min_max, polish, powered, snap

if TYPE_CHECKING:
    import torch

# Of the span of a group, to start from, by bits: the fewer levels, the better are the extremes cut off.
SHRINKS = {2: (1.0, 0.8, 0.6), 3: (1.0, 0.85, 0.7), 4: (1.0, 0.9), 8: (1.0,)}
REFITS = 3
# Weights at a time: half a megabyte, which stays in a processor's cache; more on a GPU, whose kernels have a cost of their own.
CHUNK, GPU_CHUNK = 2**17, 2**25
# Of half-quadratic quantisation's norm: below 1, so that the large errors of a few outliers count little. The published 0.7 would
# need a logarithm a weight and step.
POWER = 0.75
HALF_QUADRATIC_STEPS = 8
BETA, KAPPA = 1.0, 1.25  # the first threshold (in units of the scale), and its factor a step

GridSolver = Callable[["torch.Tensor", "torch.Tensor", Format], Grid]


def plain(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Round to nearest on the grid from the smallest to the largest value of each group: the baseline of the tests."""
    return snap(*min_max(groups, form), form)


def searched(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Round to nearest on the grid of ``least_squares_search``, put on the stored one and polished there."""
    return polish(groups, snap(*least_squares_search(groups, weight, form), form), weight, 2.0)


def least_squares_search(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero [rows, groups] with the least weighted squared error that is found, not yet on the stored grid.

    From several spans of the group, both are refitted to the codes by least squares again and again.
    """
    best = _Best(groups, weight, form, 2.0)
    for shrink in SHRINKS[form.bits]:
        scale, zero = min_max(groups, form, shrink)
        codes = best.offer(scale, zero)
        for _ in range(REFITS):
            scale, zero = _kept(least_squares(groups, codes, weight), scale, zero, form)
            codes = best.offer(scale, zero)
    return best.found


def half_quadratic(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Half-quadratic quantisation (Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/): the least sum of |error|**POWER.

    Alternates between the errors that are laid to outliers (a generalised soft threshold) and the grid for the rest. The published
    method solves for the zero alone with the scale of the span; here least squares gives both, from several spans, and the
    threshold is in units of the scale, so that the result does not depend on the size of the weights.
    """
    best = _Best(groups, weight, form, POWER)
    for shrink in SHRINKS[form.bits]:
        scale, zero = min_max(groups, form, shrink)
        beta = BETA
        for _ in range(HALF_QUADRATIC_STEPS):
            codes = best.offer(scale, zero)
            residual = (groups / scale[..., None]).sub_(codes).add_(zero[..., None])
            size = residual.abs().clamp_(min=1e-6)
            outlier = (size - size.sqrt().rsqrt_().div_(beta)).clamp_(min=0)  # size**(POWER - 1)
            outlier = outlier.copysign_(residual).mul_(scale[..., None])
            scale, zero = _kept(least_squares(groups - outlier, codes, weight), scale, zero, form)
            beta *= KAPPA
        best.offer(scale, zero)
    return polish(groups, snap(*best.found, form), weight, POWER)


SOLVERS: dict[str, GridSolver] = {"rtn": searched, "hqq": half_quadratic}


def quantize_matrix(
    matrix: torch.Tensor, form: Format, solver: GridSolver, column_weights: torch.Tensor | None = None
) -> QuantizedMatrix:
    """Quantise float32 [rows, columns] on its device. ``column_weights`` [columns] tell how much an error of each column counts."""
    parts = []
    rows, columns = matrix.shape
    step = max(1, (CHUNK if matrix.device.type == "cpu" else GPU_CHUNK) // form.padded_columns(columns))
    weight = grouped_weights(columns, form, matrix.device, column_weights)
    for start in range(0, rows, step):
        groups = grouped(matrix[start : start + step], form)
        grid = solver(groups, weight, form)
        parts.append(grid.pack(grid.codes(groups), columns))
    return joined(parts)


def joined(parts: list[QuantizedMatrix]) -> QuantizedMatrix:
    """Matrices of the same columns, one below the other."""
    planes = {name: np.concatenate([part.planes()[name] for part in parts]) for name in parts[0].planes()}
    return QuantizedMatrix(parts[0].format, parts[0].columns, **planes)


def grouped(matrix: torch.Tensor, form: Format) -> torch.Tensor:
    """[rows, groups, group_size], padded with zeros."""
    import torch

    padding = form.padded_columns(matrix.shape[1]) - matrix.shape[1]
    return torch.nn.functional.pad(matrix, (0, padding)).reshape(len(matrix), -1, form.group_size)


def grouped_weights(columns: int, form: Format, device: torch.device, given: torch.Tensor | None = None) -> torch.Tensor:
    """[1, groups, group_size]: the given column weights, scaled to a mean of 1, or 1; 0 for padded columns."""
    import torch

    weights = torch.ones(columns, device=device) if given is None else given.to(device, torch.float32)
    weights = weights / weights.mean().clamp(min=1e-30)
    return grouped(weights.clamp(min=1e-6)[None], form)


@dataclass
class _Best:
    """The best scale and zero of each group so far, by sum of weight * |error|**power; not yet on the stored grid."""

    groups: torch.Tensor
    weight: torch.Tensor
    form: Format
    power: float
    scale: torch.Tensor | None = None

    @property
    def found(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.scale is not None, "nothing was offered"
        return self.scale, self.zero

    def offer(self, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        """Keep what is better; give back the codes on this grid."""
        import torch

        codes = (self.groups * (1 / scale)[..., None]).add_(zero[..., None]).round_().clamp_(0, self.form.largest_code)
        error = (codes - zero[..., None]).mul_(scale[..., None]).sub_(self.groups).abs_()
        total = powered(error, self.power).mul_(self.weight).sum(-1)
        if self.scale is None:
            self.scale, self.zero, self.error = scale, zero, total
        else:
            wins = total < self.error
            self.scale = torch.where(wins, scale, self.scale)
            self.zero = torch.where(wins, zero, self.zero)
            self.error = torch.where(wins, total, self.error)
        return codes


def _kept(
    fitted: tuple[torch.Tensor, torch.Tensor], scale: torch.Tensor, zero: torch.Tensor, form: Format
) -> tuple[torch.Tensor, torch.Tensor]:
    """The fitted scale and zero where they are usable: the scale above 0, the zero among the codes; else the old ones."""
    import torch

    usable = (fitted[0] > 1e-30) & torch.isfinite(fitted[1]) & (fitted[1] >= 0) & (fitted[1] <= form.largest_code)
    return torch.where(usable, fitted[0], scale), torch.where(usable, fitted[1], zero)
