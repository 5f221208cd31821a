"""Coordinate descent lowers the error of the outputs, round by round, from any rounding."""

from __future__ import annotations

import pytest
import torch
from test_solvers import inputs, outliers

from ipfs_accelerate_py.quantize.descent import descend
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.gptq import damped
from ipfs_accelerate_py.quantize.grid import Grid
from ipfs_accelerate_py.quantize.solvers import grouped, grouped_weights, searched


@pytest.mark.parametrize("columns", (160, 100))
@pytest.mark.parametrize("bits", (2, 3, 4))
def test_every_round_loses_less(bits: int, columns: int) -> None:
    """The packed matrix's tr(D H D') falls with each round, far below the rounding that it starts from; the last group may be padded."""
    matrix, form = outliers(columns=columns), Format(bits, 64)
    hessian = damped(inputs(columns).T @ inputs(columns))
    start = searched(grouped(matrix, form), grouped_weights(columns, form, matrix.device), form)
    codes = start.codes(grouped(matrix, form)).flatten(1)[:, :columns]
    errors = []
    for rounds in range(3):
        grid = Grid(form, start.row_scales, start.scale_codes.clone(), start.zero_codes.clone())
        better, grid = descend(matrix, codes, grid, hessian, rounds)
        lost = torch.from_numpy(grid.pack(grouped(better, form), columns).dequantize()) - matrix
        errors.append(float(((lost @ hessian) * lost).sum()))
    assert errors[2] < errors[1] < 0.8 * errors[0]
