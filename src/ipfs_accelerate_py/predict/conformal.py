"""Intervals by conformal prediction (Vovk et al., 2005; Angelopoulos and Bates, 2021, https://arxiv.org/abs/2107.07511): as wide as the
errors on whole devices and whole models that were left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..lazy_numpy import np
from .fitted import Width
from .prediction import LEVEL, Interval

FEW = 1.5  # widens an interval that fewer errors give than the level needs


def width(errors: Sequence[tuple[str, float]], level: float = LEVEL) -> Width:
    """From (left-out group, logarithm of measured over predicted): the half-width that holds a share ``level`` of such errors.

    The quantile is that of the finite sample, the ceil((n + 1) level)-th smallest; where n is too small for it, the largest error times
    FEW.
    """
    if not errors:
        return Width(math.log(10), 0, 0)
    sizes = np.sort(np.abs([error for _, error in errors]))
    rank = math.ceil((len(sizes) + 1) * level)
    half = float(sizes[rank - 1]) if rank <= len(sizes) else float(sizes[-1]) * FEW
    percent = 100 * np.abs(np.exp(-np.array([error for _, error in errors])) - 1)  # of the measured value
    summary = {"median_percent": float(np.median(percent)), "mean_percent": float(np.mean(percent))}
    return Width(half, len(sizes), len({group for group, _ in errors}), summary)


def interval(value: float, half_width: float, level: float = LEVEL) -> Interval:
    """Around a positive value, in the logarithm."""
    factor = math.exp(half_width)
    return Interval(value, value / factor, value * factor, level)


def coverage(errors: Sequence[tuple[str, float]], level: float = LEVEL) -> float:
    """Share of the errors within the half-width that the other groups' errors give: what an interval of this kind covers of a group that
    took no part in making it. NaN where there is but one group."""
    groups = sorted({group for group, _ in errors})
    if len(groups) < 2:
        return math.nan
    inside = 0
    for group in groups:
        others = [row for row in errors if row[0] != group]
        half = width(others, level).half_width
        inside += sum(abs(error) <= half for name, error in errors if name == group)
    return inside / len(errors)


# Of the range of n normal values its expectation in standard deviations, and the 95 % quantile of Student's t with n - 1 degrees.
_RANGE = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847, 9: 2.970, 10: 3.078}
_STUDENT = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 7: 1.943, 8: 1.895, 9: 1.860, 10: 1.833}


def next_launch(low: float, high: float, launches: int) -> float | None:
    """Half-width, in the logarithm, that holds the next launch's median with 90 %, from the lowest and highest of ``launches``. None for
    a single one."""
    if launches < 2:
        return None
    n = min(launches, 10)
    return _STUDENT[n] * math.log(high / low) / _RANGE[n] * math.sqrt(1 + 1 / n)
