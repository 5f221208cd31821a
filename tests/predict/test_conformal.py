"""Intervals: the finite-sample quantile by hand, and coverage of whole groups that took no part, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ipfs_accelerate_py.predict.conformal import coverage, interval, next_launch, width


def test_the_half_width_is_the_finite_sample_quantile() -> None:
    """Of 19 errors 0.01 to 0.19 the ceil(20 * 0.9) = 18th smallest; of too few the largest, widened."""
    assert width([("g", index / 100) for index in range(1, 20)]).half_width == pytest.approx(0.18)
    assert width([("g", 0.1), ("g", -0.2)]).half_width == pytest.approx(0.3)
    assert width([]).half_width == pytest.approx(math.log(10))


def test_errors_are_told_as_a_share_of_what_was_measured() -> None:
    """A prediction of twice the measured time is wrong by 100 %, of half of it by 50 %."""
    found = width([("g", math.log(1 / 2)), ("g", math.log(2))]).error
    assert found["mean_percent"] == pytest.approx(75)


def test_intervals_of_whole_groups_cover_groups_that_were_left_out() -> None:
    """Errors with a part that each group shares: calibrating on other groups covers about 90 % of a new one's."""
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        errors = [
            (str(group), float(generator.normal(shift, 0.05)))
            for group in range(12)
            for shift in [generator.normal(0, 0.1)]
            for _ in range(5)
        ]
        shares.append(coverage(errors))
    assert 0.85 <= np.mean(shares) <= 0.95


def test_coverage_of_a_single_group_is_unknown() -> None:
    """Nothing was left out then."""
    assert math.isnan(coverage([("one", 0.1), ("one", 0.2)]))


def test_an_interval_is_symmetric_in_the_logarithm() -> None:
    """Half and twice the value lie at its ends."""
    found = interval(10.0, math.log(2))
    assert (found.low, found.high, found.level) == (pytest.approx(5), pytest.approx(20), 0.9)
    assert found.inverse(1000).low == pytest.approx(50)


@pytest.mark.parametrize("launches", [3, 5, 8])
def test_the_next_launch_lies_in_the_interval_of_those_before(launches: int) -> None:
    """By simulation with normal logarithms: 90 %, within 4 %; one launch says nothing of the next."""
    generator = np.random.default_rng(launches)
    inside = 0
    for _ in range(4000):
        values = generator.normal(0, 0.05, launches + 1)
        seen = values[:-1]
        half = next_launch(math.exp(seen.min()), math.exp(seen.max()), launches)
        assert half is not None
        inside += abs(values[-1] - np.median(seen)) <= half
    assert inside / 4000 == pytest.approx(0.9, abs=0.04)
    assert next_launch(1.0, 1.0, 1) is None


def test_students_quantiles_are_scipys() -> None:
    """The small table that spares the import."""
    from ipfs_accelerate_py.predict.conformal import _STUDENT

    for n, value in _STUDENT.items():
        assert value == pytest.approx(stats.t.ppf(0.95, n - 1), abs=6e-4)
