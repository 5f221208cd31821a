"""The warm-up test on simulated series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipfs_accelerate_py.measure.warm_up import settled


def first_settled(series: np.ndarray) -> int | None:
    """Number of iterations after which the series is first called settled."""
    return next((n for n in range(1, len(series) + 1) if settled(series[:n])), None)


@given(st.floats(0.2, 5), st.floats(1, 20))
def test_an_exponential_warm_up_ends_after_its_knee(amplitude, knee):
    """When t = 1 + A exp(-i / knee) is called settled, what is left of A is at most 2 %; and it is called so."""
    iterations = np.arange(400)
    ended = first_settled(1 + amplitude * np.exp(-iterations / knee))
    assert ended is not None
    assert amplitude * np.exp(-ended / knee) <= 0.02


@given(st.integers(6, 20), st.floats(1.3, 10), st.integers(0, 1000))
def test_a_knee_within_the_older_window_is_not_settled(slow, height, seed):
    """Of the older twenty values, six or more from before the knee: their quartile or median tells."""
    series = np.random.default_rng(seed).normal(1, 0.01, 40)
    series[:slow] *= height
    assert not settled(series)


@pytest.mark.parametrize("noise", [0, 0.02, 0.05, 0.1])
def test_a_constant_series_settles_early(noise):
    """With noise up to 10 % all of 100 series settle within 60 iterations, half of them within 25."""
    generator = np.random.default_rng(1)
    ended = [first_settled(np.abs(generator.normal(1, noise, 60))) for _ in range(100)]
    assert None not in ended
    assert np.median(ended) <= 25


@pytest.mark.parametrize("growth", [0.97, 0.99, 1.01, 1.03])
def test_a_trend_never_settles(growth):
    """1 % an iteration or more, up or down, under 3 % noise, is never called steady."""
    generator = np.random.default_rng(2)
    for _ in range(30):
        assert first_settled(growth ** np.arange(150) * generator.normal(1, 0.03, 150)) is None


def test_few_slow_iterations_are_judged_by_what_they_tell():
    """Three alike are steady and three that halve are not, but only when asked; two say nothing."""
    assert settled([9, 5, 5.2], smallest_window=1)
    assert not settled([20, 10, 5], smallest_window=1)
    assert not settled([5, 5, 5])
    assert not settled([5, 5], smallest_window=1)


@given(st.lists(st.integers(0, 10**12), max_size=60), st.integers(1, 1000))
def test_the_unit_does_not_matter(series, factor):
    """Nanoseconds or microseconds give the same answer, and a coarse clock's zeros are no error."""
    assert settled(series, 1) == settled([factor * value for value in series], 1)
