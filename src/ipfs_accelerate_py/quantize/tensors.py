"""One matrix: quantise it with a solver, and measure what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .formats import Format, QuantizedMatrix
from .gptq import gptq
from .grid import LARGEST_SCALE
from .solvers import SOLVERS, plain, quantize_matrix

if TYPE_CHECKING:
    import torch

SAMPLED_ROWS = 256  # of a matrix, evenly spread, to measure how much it loses by bits


@dataclass(frozen=True)
class Quantized:
    """``weight_error`` is |W - decoded| / |W| (Frobenius norms); ``output_error`` the same of the outputs on the calibration inputs,
    None without a text."""

    matrix: QuantizedMatrix
    weight_error: float
    output_error: float | None


def quantize_tensor(
    name: str, values: np.ndarray, form: Format, solver: str, device: str, squares: torch.Tensor | None = None
) -> Quantized:
    """Quantise float32 [rows, columns]. ``squares`` is the sum of x xᵀ over the calibration inputs [columns, columns] or its
    diagonal [columns]; gptq takes the first where it is given, and otherwise rounds with a search, as for an embedding.

    UserError naming the tensor where float16 row scales cannot hold its values.
    """
    import torch

    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST_SCALE * form.largest_code:
        raise UserError(f"Tensor '{name}' has a value of {largest:.3g}, too large for float16 scales at {form.bits} bits.")
    matrix = torch.from_numpy(values).to(device)
    if solver == "gptq" and squares is not None and squares.ndim == 2:
        packed = gptq(matrix, squares, form)
    else:
        importance = None if squares is None else squares if squares.ndim == 1 else squares.diagonal()
        packed = quantize_matrix(matrix, form, SOLVERS["rtn" if solver == "gptq" else solver], importance)
    lost = matrix - torch.from_numpy(packed.dequantize()).to(device)
    weight_error = _ratio((lost * lost).sum(), (matrix * matrix).sum())
    if squares is None:
        return Quantized(packed, weight_error, None)
    return Quantized(packed, weight_error, _ratio(_energy(lost, squares), _energy(matrix, squares)))


def squared_errors(
    values: np.ndarray, group_size: int, widths: tuple[int, ...], device: str, diagonal: torch.Tensor | None
) -> dict[int, float]:
    """The relative squared error by bits, from SAMPLED_ROWS rows rounded with a search; each column weighted by ``diagonal``."""
    import torch

    sample = np.linspace(0, len(values) - 1, min(SAMPLED_ROWS, len(values))).round().astype(int)
    matrix = torch.from_numpy(values[sample]).to(device)
    squares = torch.ones(matrix.shape[1], device=device) if diagonal is None else diagonal
    found = {}
    for bits in widths:
        solver = plain if bits == 8 else SOLVERS["rtn"]
        packed = quantize_matrix(matrix, Format(bits, group_size), solver, diagonal)
        lost = matrix - torch.from_numpy(packed.dequantize()).to(device)
        found[bits] = _ratio(_energy(lost, squares), _energy(matrix, squares)) ** 2
    return found


def _energy(matrix: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """tr(M S Mᵀ): the squared norm of the outputs of ``matrix``."""
    if squares.ndim == 1:
        return (matrix * matrix * squares).sum()
    return ((matrix @ squares) * matrix).sum()


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    """sqrt(part / whole); 0 for a matrix of zeros."""
    return float((part / whole).clamp(min=0).sqrt()) if float(whole) > 0 else 0.0
