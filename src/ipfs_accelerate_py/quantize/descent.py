"""Coordinate descent on the error of the outputs, from any rounding: no step makes tr(D H Dᵀ) larger, D being what was lost.

In turns the grid of each group moves to the neighbouring stored scale or zero that helps most, and each code to the one that is best
with all the others as they are (coordinate descent as in Nair and Suggala, 2024, https://arxiv.org/abs/2406.17542).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .formats import SCALE_LEVELS, ZERO_LEVELS
from .grid import NEIGHBOURS, Grid

if TYPE_CHECKING:
    import torch

ROUNDS = 3


def descend(
    matrix: torch.Tensor, codes: torch.Tensor, grid: Grid, hessian: torch.Tensor, rounds: int = ROUNDS
) -> tuple[torch.Tensor, Grid]:
    """Better codes [rows, columns] and grid for float32 ``matrix`` [rows, columns], given ``hessian`` [columns, columns]: the damped
    sum of x xᵀ over the inputs. Codes are whole float32."""
    size = grid.form.group_size
    columns = matrix.shape[1]
    spans = [(start, min(start + size, columns)) for start in range(0, columns, size)]
    codes = codes.clone()
    for _ in range(rounds):
        lost = matrix - _decoded(codes, grid, size)
        slope = lost @ hessian  # -1/2 of the gradient by the decoded weights
        for group, (start, stop) in enumerate(spans):
            before = codes[:, start:stop].clone(), grid.scale[:, group].clone(), grid.zero[:, group].clone()
            _move_grid(codes[:, start:stop], grid, group, slope[:, start:stop], hessian[start:stop, start:stop])
            scale, zero = grid.scale[:, group], grid.zero[:, group]
            change = (codes[:, start:stop] - zero) * scale - (before[0] - before[2]) * before[1]
            inside = slope[:, start:stop] - change @ hessian[start:stop, start:stop]
            for column in range(start, stop):
                place = column - start
                old = codes[:, column]
                wanted = (old - zero[:, 0]) * scale[:, 0] + inside[:, place] / hessian[column, column]
                new = (wanted / scale[:, 0] + zero[:, 0]).round().clamp(0, grid.form.largest_code)
                moved = (new - old) * scale[:, 0]
                codes[:, column] = new
                change[:, place] += moved
                inside -= moved[:, None] * hessian[column, start:stop]
            slope -= change @ hessian[start:stop]
    return codes, grid


def _move_grid(codes: torch.Tensor, grid: Grid, group: int, slope: torch.Tensor, hessian: torch.Tensor) -> None:
    """Move the scale and zero of one group, in place, where that lowers the error with the codes as they are."""
    import torch

    step = grid.form.largest_code / ZERO_LEVELS
    scale_codes, zero_codes = grid.scale_codes[:, group].clone(), grid.zero_codes[:, group].clone()
    decoded = (codes - zero_codes[:, None] * step) * (grid.row_scales * scale_codes / SCALE_LEVELS)[:, None]
    best = torch.zeros_like(scale_codes)
    best_scale, best_zero = scale_codes, zero_codes
    for scale_step, zero_step in NEIGHBOURS:
        other_scale = (scale_codes + scale_step).clamp(1, SCALE_LEVELS)
        other_zero = (zero_codes + zero_step).clamp(0, ZERO_LEVELS)
        other = (codes - other_zero[:, None] * step) * (grid.row_scales * other_scale / SCALE_LEVELS)[:, None]
        change = other - decoded
        gain = (2 * change * slope).sum(-1) - ((change @ hessian) * change).sum(-1)
        wins = gain > best
        best = torch.where(wins, gain, best)
        best_scale = torch.where(wins, other_scale, best_scale)
        best_zero = torch.where(wins, other_zero, best_zero)
    grid.scale_codes[:, group], grid.zero_codes[:, group] = best_scale, best_zero


def _decoded(codes: torch.Tensor, grid: Grid, size: int) -> torch.Tensor:
    scale, zero = (part[..., 0].repeat_interleave(size, 1)[:, : codes.shape[1]] for part in (grid.scale, grid.zero))
    return (codes - zero) * scale
