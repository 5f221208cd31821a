"""The grid that a group of weights is rounded to, as it is stored: how it is fitted, and what an error on it is.

Everything works on groups ``[rows, groups, group_size]`` in float32 on one device. ``weight`` [1 or rows, groups, group_size] tells
how much an error of each column counts; it is 0 for padded columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .formats import SCALE_LEVELS, ZERO_LEVELS, Format, QuantizedMatrix, pack

if TYPE_CHECKING:
    import torch

LEAST_SCALE = 2.0**-24  # the smallest float16 above 0
LARGEST_SCALE = 65504.0  # the largest float16
NEIGHBOURS = ((0, -1), (0, 1), (-1, 0), (1, 0), (-2, 0), (2, 0))  # steps of the scale code and the zero code


@dataclass
class Grid:
    """Row scales [rows] (float32 that float16 holds exactly), scale codes and zero codes [rows, groups] (whole float32)."""

    form: Format
    row_scales: torch.Tensor
    scale_codes: torch.Tensor
    zero_codes: torch.Tensor

    @property
    def scale(self) -> torch.Tensor:
        """[rows, groups, 1]"""
        return (self.row_scales[:, None] * (self.scale_codes / SCALE_LEVELS))[..., None]

    @property
    def zero(self) -> torch.Tensor:
        """[rows, groups, 1], in units of the code"""
        return (self.zero_codes * (self.form.largest_code / ZERO_LEVELS))[..., None]

    def codes(self, groups: torch.Tensor) -> torch.Tensor:
        """The nearest codes, whole float32 of the shape of ``groups``. A group with scale 0 gets code 0."""
        scale = self.scale
        inverse = (1 / scale).nan_to_num(posinf=0.0)
        return (groups * inverse).add_(self.zero).round_().clamp_(0, self.form.largest_code).mul_(scale > 0)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes - self.zero).mul_(self.scale)

    def error(self, groups: torch.Tensor, weight: torch.Tensor, power: float) -> torch.Tensor:
        """sum of weight * |w - decoded|**power, [rows, groups]"""
        return (powered(self.decode(self.codes(groups)).sub_(groups).abs_(), power).mul_(weight)).sum(-1)

    def pack(self, codes: torch.Tensor, columns: int) -> QuantizedMatrix:
        """The matrix as it is stored; ``codes`` [rows, groups, group_size]."""
        flat = codes.reshape(len(codes), -1)[:, :columns].byte().cpu().numpy()
        parts = (self.scale_codes.byte().cpu().numpy(), self.zero_codes.byte().cpu().numpy(), self.row_scales.cpu().numpy())
        return pack(flat, *parts, self.form)


def min_max(groups: torch.Tensor, form: Format, shrink: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero [rows, groups], not yet on the stored grid, that span each group's values and 0, shrunk by a factor."""
    low = groups.amin(-1).clamp(max=0) * shrink
    high = groups.amax(-1).clamp(min=0) * shrink
    scale = ((high - low) / form.largest_code).clamp(min=1e-30)
    return scale, -low / scale


def snap(scale: torch.Tensor, zero: torch.Tensor, form: Format, row_scales: torch.Tensor | None = None) -> Grid:
    """The stored grid nearest to a scale and zero [rows, groups]. Row scales are the largest of the row's, unless given."""

    if row_scales is None:
        row_scales = float16_above(scale.amax(-1).clamp(LEAST_SCALE, LARGEST_SCALE))
    codes = (scale / row_scales[:, None] * SCALE_LEVELS).round().clamp(1, SCALE_LEVELS)
    zeros = (zero * (ZERO_LEVELS / form.largest_code)).round().clamp(0, ZERO_LEVELS)
    return Grid(form, row_scales, codes, zeros)


def float16_above(values: torch.Tensor) -> torch.Tensor:
    """The smallest float16 that is not below each positive value, as float32: a row's scale must reach that of all its groups, and of
    tiny weights (subnormal numbers) the nearest float16 may be far below."""
    import torch

    nearest = values.to(torch.float16)
    next_up = (nearest.view(torch.int16) + 1).view(torch.float16)
    return torch.where(nearest.to(torch.float32) < values, next_up, nearest).to(torch.float32)


def least_squares(groups: torch.Tensor, codes: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero [rows, groups] that decode given codes nearest to ``groups``; where the codes don't tell, nan."""
    total = weight.sum(-1, keepdim=True)
    mean_code, mean_value = (weight * codes).sum(-1, keepdim=True) / total, (weight * groups).sum(-1, keepdim=True) / total
    centred = weight * (codes - mean_code)
    scale = (centred * groups).sum(-1) / (centred * codes).sum(-1)
    return scale, mean_code[..., 0] - mean_value[..., 0] / scale


def polish(groups: torch.Tensor, grid: Grid, weight: torch.Tensor, power: float) -> Grid:
    """Move each group's stored scale and zero to the neighbouring codes that make the error smaller, one after the other."""
    import torch

    errors = grid.error(groups, weight, power)
    for scale_step, zero_step in NEIGHBOURS:
        other = Grid(
            grid.form,
            grid.row_scales,
            (grid.scale_codes + scale_step).clamp(1, SCALE_LEVELS),
            (grid.zero_codes + zero_step).clamp(0, ZERO_LEVELS),
        )
        found = other.error(groups, weight, power)
        wins = found < errors
        errors = torch.where(wins, found, errors)
        scale_codes = torch.where(wins, other.scale_codes, grid.scale_codes)
        zero_codes = torch.where(wins, other.zero_codes, grid.zero_codes)
        grid = Grid(grid.form, grid.row_scales, scale_codes, zero_codes)
    return grid


def powered(absolute: torch.Tensor, power: float) -> torch.Tensor:
    """absolute**power, in place. The two powers in use go without a logarithm an element, which would take most of the time."""
    if power == 2:
        return absolute.mul_(absolute)
    if power == 0.75:
        root = absolute.sqrt_()
        return root.mul_(root.sqrt())
    return absolute.pow_(power)
