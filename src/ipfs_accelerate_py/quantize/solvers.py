"""Solvers without calibration: plain rounding, rounding with a search, and half-quadratic quantisation.

They take a weight matrix and give its packed form, chunk by chunk of rows, so that what they need beside the matrix is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import nearest
from .formats import Format, QuantizedMatrix
from .grid import Grid, least_squares, min_max, polish, snap

if TYPE_CHECKING:
    import torch

SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the span of a group, to start from: at few bits the extremes are better cut off
REFITS = 3
CHUNK = 2**22  # weights at a time
LP = 0.7  # of half-quadratic quantisation: the norm's power, below 1 so that a few large errors of outliers count little
HALF_QUADRATIC_STEPS = 20
BETA, KAPPA = 10.0, 1.01

Solver = Callable[["torch.Tensor", "torch.Tensor", Format], Grid]


def plain(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Round to nearest on the grid from the smallest to the largest value of each group."""
    return snap(*min_max(groups, form), form)


def searched(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Round to nearest with a search for the scale and zero with the least (weighted) squared error.

    From several spans of the group, scale and zero are refitted to the codes by least squares, the best is put on the stored
    grid, and its codes are walked to neighbours while that helps.
    """
    best_scale, best_zero, best_error = _start(groups, weight, form, 2.0)
    for shrink in SHRINKS:
        scale, zero = min_max(groups, form, shrink)
        for _ in range(REFITS):
            fitted = least_squares(groups, _free_codes(groups, scale, zero, form), weight)
            scale, zero = _kept(fitted, scale, zero, form)
            best_scale, best_zero, best_error = _better(groups, weight, 2.0, form, scale, zero, (best_scale, best_zero, best_error))
    return polish(groups, snap(best_scale, best_zero, form), weight, 2.0)


def half_quadratic(groups: torch.Tensor, weight: torch.Tensor, form: Format) -> Grid:
    """Half-quadratic quantisation (Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/): minimise sum |w - decoded|**LP.

    Alternates between the errors that are to be taken as outliers' (a generalised soft threshold) and the grid for what is left.
    The published method solves for the zero alone; here the scale is solved too, by least squares, since it is stored
    on a coarser grid anyway. Starts from several spans; the best grid of all steps is taken.
    """
    import torch

    best = _start(groups, weight, form, LP)
    for shrink in (1.0, 0.8, 0.6):
        scale, zero = min_max(groups, form, shrink)
        beta = BETA / groups.abs().mean().clamp(min=1e-12)
        for step in range(HALF_QUADRATIC_STEPS):
            codes = _free_codes(groups, scale, zero, form)
            residual = groups - scale[..., None] * (codes - zero[..., None])
            threshold = (residual.abs() + 1e-12) ** (LP - 1) / (beta**(2 - LP) if False else beta)
            outlier = torch.sign(residual) * (residual.abs() - threshold).clamp(min=0)
            scale, zero = _kept(least_squares(groups - outlier, codes, weight), scale, zero, form)
            beta = beta * KAPPA
            best = _better(groups, weight, LP, form, scale, zero, best)
    return polish(groups, snap(best[0], best[1], form), weight, LP)
