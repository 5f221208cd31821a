"""Error compensation with calibration data (Frantar et al., 2022, https://arxiv.org/abs/2210.17323), without reordering of columns.

Columns are rounded from left to right; what the rounding of one does to the output, measured on the calibration inputs, is
made up for by the columns that are still to come. Then coordinate descent (``descent.py``) moves codes and grids that still help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .descent import descend
from .formats import Format, QuantizedMatrix
from .grid import Grid, polish, snap
from .solvers import CHUNK, grouped, grouped_weights, joined, least_squares_search

if TYPE_CHECKING:
    import torch

DAMPING = 0.01  # of the Hessian's mean diagonal, as published
HEADROOM = 1.1  # of the row scales: groups that compensate may need a larger scale than before
MOST_ROWS = 2**14  # at a time; rows don't depend on each other


def gptq(matrix: torch.Tensor, hessian: torch.Tensor, form: Format) -> QuantizedMatrix:
    """Quantise float32 [rows, columns], given ``hessian`` [columns, columns]: the sum of x xᵀ over the calibration inputs x.

    Minimises tr(D H Dᵀ), the squared error D of the outputs on those inputs. Both are on one device; neither is changed.
    """
    hessian = damped(hessian)
    factor = inverse_factor(hessian)
    return joined([_rows(part, factor, hessian, form) for part in matrix.split(MOST_ROWS)])


def damped(hessian: torch.Tensor) -> torch.Tensor:
    """With DAMPING of its mean diagonal added. Inputs that are always 0 get a unit diagonal."""
    found = hessian.clone()
    diagonal = found.diagonal()
    diagonal[diagonal == 0] = 1.0
    diagonal += DAMPING * diagonal.mean()
    return found


def inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of a damped Hessian."""
    import torch

    # float64: with few calibration tokens the condition number is near what float32 can hold.
    lower = torch.linalg.cholesky(hessian.double())
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()


def _rows(matrix: torch.Tensor, factor: torch.Tensor, hessian: torch.Tensor, form: Format) -> QuantizedMatrix:
    import torch

    rest, importance = matrix.clone(), hessian.diagonal()
    columns, size = matrix.shape[1], form.group_size
    row_scales = _row_scales(matrix, importance, form)
    grids, codes = [], []
    for start in range(0, columns, size):
        stop = min(start + size, columns)
        block = rest[:, start:stop].clone()
        weight = grouped_weights(stop - start, form, matrix.device, importance[start:stop])
        grid = _fit(grouped(block, form), weight, form, row_scales)
        scale, zero = grid.scale[:, 0, 0], grid.zero[:, 0, 0]
        errors = torch.empty_like(block)
        rounded = torch.zeros(len(block), size, device=matrix.device)
        for column in range(stop - start):
            place = start + column
            code = (block[:, column] / scale + zero).round().clamp(0, form.largest_code)
            rounded[:, column] = code
            error = (block[:, column] - scale * (code - zero)) / factor[place, place]
            block[:, column:] -= error[:, None] * factor[place, place:stop]
            errors[:, column] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
        grids.append(grid)
        codes.append(rounded)
    whole = Grid(
        form,
        row_scales,
        torch.cat([grid.scale_codes for grid in grids], 1),
        torch.cat([grid.zero_codes for grid in grids], 1),
    )
    flat, whole = descend(matrix, torch.stack(codes, 1).flatten(1)[:, :columns], whole, hessian)
    return whole.pack(grouped(flat, form), columns)


def _row_scales(matrix: torch.Tensor, importance: torch.Tensor, form: Format) -> torch.Tensor:
    """Row scales that hold the scales of the weights as they are, with some headroom; float16 values in float32 [rows]."""
    import torch

    weight = grouped_weights(matrix.shape[1], form, matrix.device, importance)
    rows = max(1, CHUNK // matrix.shape[1])
    found = []
    for part in matrix.split(rows):
        scale, zero = least_squares_search(grouped(part, form), weight, form)
        found.append(snap(scale * HEADROOM, zero, form).row_scales)
    return torch.cat(found)


def _fit(groups: torch.Tensor, weight: torch.Tensor, form: Format, row_scales: torch.Tensor) -> Grid:
    """The grid [rows, 1] of one group of columns, on the given row scales."""
    import torch

    rows = max(1, CHUNK // form.group_size)
    parts = []
    for part, scales in zip(groups.split(rows), row_scales.split(rows), strict=True):
        scale, zero = least_squares_search(part, weight, form)
        parts.append(polish(part, snap(scale, zero, form, scales), weight, 2.0))
    return Grid(
        form, row_scales, torch.cat([part.scale_codes for part in parts]), torch.cat([part.zero_codes for part in parts])
    )
