"""Each solver against plain rounding on the objective that it minimises, on weights with outliers; and odd matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.quantize.formats import BITS, GROUP_SIZES, Format, QuantizedMatrix
from ipfs_accelerate_py.quantize.gptq import damped, gptq, inverse_factor
from ipfs_accelerate_py.quantize.solvers import POWER, SOLVERS, half_quadratic, plain, quantize_matrix, searched
from ipfs_accelerate_py.quantize.tensors import quantize_tensor


def outliers(rows: int = 48, columns: int = 160, seed: int = 0) -> torch.Tensor:
    """Normal weights of rows of different size, one in 200 ten times as large."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, columns, generator=draw) * 0.02
    weights[torch.rand(rows, columns, generator=draw) < 0.005] *= 10
    return weights * (0.1 + torch.rand(rows, 1, generator=draw))


def inputs(columns: int = 160, seed: int = 1) -> torch.Tensor:
    """Correlated calibration inputs [tokens, columns] of columns of different size."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.eye(columns) + 0.1 * torch.randn(columns, columns, generator=draw)
    return torch.randn(700, columns, generator=draw) @ mixing * (0.2 + 3 * torch.rand(columns, generator=draw))


def lost(matrix: torch.Tensor, packed: QuantizedMatrix) -> torch.Tensor:
    return torch.from_numpy(packed.dequantize()) - matrix


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_a_search_loses_less_than_plain_rounding(bits: int, group_size: int) -> None:
    """In squared error, at every width and group."""
    matrix, form = outliers(), Format(bits, group_size)
    searching, rounding = (lost(matrix, quantize_matrix(matrix, form, solver)).square().sum() for solver in (searched, plain))
    assert searching < rounding


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_half_quadratic_loses_less_than_plain_rounding_in_its_norm(bits: int, group_size: int) -> None:
    """In the sum of |error|**POWER, at every width and group."""
    matrix, form = outliers(), Format(bits, group_size)
    solving, rounding = (
        (lost(matrix, quantize_matrix(matrix, form, solver)).abs() ** POWER).sum() for solver in (half_quadratic, plain)
    )
    assert solving < rounding


@pytest.mark.parametrize("bits", (2, 3, 4))
def test_half_quadratic_beats_the_search_in_its_norm(bits: int) -> None:
    """Each of the two is the better one on what it minimises."""
    matrix, form = outliers(), Format(bits, 64)
    errors = {name: lost(matrix, quantize_matrix(matrix, form, solver)) for name, solver in SOLVERS.items()}
    assert (errors["hqq"].abs() ** POWER).sum() < (errors["rtn"].abs() ** POWER).sum()
    assert errors["rtn"].square().sum() < errors["hqq"].square().sum()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_compensation_loses_less_output_than_a_weighted_search(bits: int, group_size: int) -> None:
    """On the calibration inputs, and against rounding with the search weighted by their squares, not against the plain one."""
    matrix, form, x = outliers(), Format(bits, group_size), inputs()
    squares = x.T @ x
    compensated = (x @ lost(matrix, gptq(matrix, squares, form)).T).square().sum()
    rounded = (x @ lost(matrix, quantize_matrix(matrix, form, searched, squares.diagonal())).T).square().sum()
    assert compensated < 0.9 * rounded


def test_the_weighted_search_favours_the_columns_that_count() -> None:
    """A column weighted a thousandfold comes out nearer than without the weight."""
    matrix, form = outliers(), Format(2, 64)
    weights = torch.ones(160)
    weights[10] = 1000
    weighted, equal = (
        lost(matrix, quantize_matrix(matrix, form, searched, given))[:, 10].square().sum() for given in (weights, None)
    )
    assert weighted < 0.2 * equal


def test_the_inverse_factor_is_one() -> None:
    """upper.T @ upper is the inverse of the damped Hessian; an input that is always 0 does not make it singular."""
    x = inputs()
    x[:, 3] = 0
    squares = x.T @ x
    upper = inverse_factor(damped(squares)).double()
    expected = squares.double()
    expected[3, 3] = 1
    expected += torch.eye(160) * 0.01 * expected.diagonal().mean()
    assert torch.allclose((upper.T @ upper) @ expected, torch.eye(160, dtype=torch.float64), atol=1e-3)
    assert torch.equal(upper, upper.triu())


@pytest.mark.parametrize("solver", ["rtn", "hqq", "gptq"])
@pytest.mark.parametrize("bits", BITS)
def test_degenerate_rows_survive(solver: str, bits: int) -> None:
    """Rows of zeros, of one value, of one sign, and of tiny values decode to near themselves; 37 columns are padded."""
    values = np.zeros((5, 37), np.float32)
    values[1] = 0.5
    values[2] = np.linspace(0.1, 0.2, 37)
    values[3] = -np.linspace(1, 2, 37)
    values[4] = 1e-5 * np.random.default_rng(0).standard_normal(37)
    x = inputs(37)
    made = quantize_tensor("t", values, Format(bits, 32), solver, "cpu", x.T @ x if solver == "gptq" else None)
    decoded = made.matrix.dequantize()
    assert np.isfinite(decoded).all()
    assert np.abs(decoded[0]).max() < 1e-6
    span = np.maximum(values.max(1), 0) - np.minimum(values.min(1), 0)
    # Half a step of the grid, which the coarse zero may double.
    steps = {"rtn": 1, "hqq": 3, "gptq": 4}[solver]  # hqq lets extremes go, compensation moves weights on purpose
    assert (np.abs(decoded - values).max(1) <= steps * span / (2**bits - 1) + 1e-6).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_size_of_the_weights_does_not_matter(solver: str) -> None:
    """Weights times 2**-6 give the same codes, and scales times 2**-6."""
    matrix, form = outliers(), Format(3, 64)
    large, small = (quantize_matrix(matrix * factor, form, SOLVERS[solver]) for factor in (1.0, 2.0**-6))
    same = (large.unpack() == small.unpack()).mean()
    assert same > 0.999  # float16 row scales differ where the smaller ones are subnormal


def test_a_value_that_no_scale_holds_names_the_tensor() -> None:
    """1e9 at 2 bits is beyond float16 row scales."""
    with pytest.raises(UserError, match=r"'model\.x\.weight' has a value of 1e\+09, too large for float16 scales at 2 bits"):
        quantize_tensor("model.x.weight", np.full((1, 64), 1e9, np.float32), Format(2), "rtn", "cpu")


def test_errors_are_those_of_the_decoded_weights() -> None:
    """Weight and output errors against NumPy on the decoded matrix."""
    values, x = outliers().numpy(), inputs()
    made = quantize_tensor("t", values, Format(3, 32), "gptq", "cpu", x.T @ x)
    difference = made.matrix.dequantize() - values
    assert made.weight_error == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(values), rel=1e-4)
    outputs = np.linalg.norm(x.numpy() @ difference.T) / np.linalg.norm(x.numpy() @ values.T)
    assert made.output_error == pytest.approx(outputs, rel=1e-3)
