"""Steps of a level: found where they were made, and not where there is but noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ipfs_accelerate_py.measure.steps import steps


def test_steps_are_found_where_they_were_made() -> None:
    """Three levels, 10 % apart, with 2 % of noise."""
    generator = np.random.default_rng(0)
    levels = np.repeat([0.0, math.log(1.1), math.log(0.9)], [12, 10, 15])
    assert steps(levels + generator.normal(0, 0.02, len(levels))) == [12, 22]


def test_noise_alone_has_hardly_ever_a_step() -> None:
    """Of 200 series without one, at most 5 % show one."""
    generator = np.random.default_rng(1)
    assert sum(bool(steps(generator.normal(0, 0.03, 25))) for _ in range(200)) <= 10


def test_one_odd_campaign_is_no_step() -> None:
    """The L1 norm leaves a single outlier where it is."""
    generator = np.random.default_rng(2)
    series = generator.normal(0, 0.01, 20)
    series[9] += 0.5
    assert steps(series) == []


def test_a_regression_in_the_last_campaigns_is_seen() -> None:
    """Three campaigns after twelve are enough for a step of 20 %."""
    generator = np.random.default_rng(3)
    series = generator.normal(0, 0.02, 15)
    series[12:] += math.log(1.2)
    assert steps(series) == [12]


def test_short_series_and_values_that_are_none() -> None:
    """One value has no step; NaN is refused."""
    assert steps([]) == steps([1.0]) == []
    with pytest.raises(ValueError, match="not finite"):
        steps([1.0, math.nan, 2.0])
