"""The statistics against brute force, closed forms and simulated launches."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ipfs_accelerate_py.measure.statistics import (
    benjamini_hochberg,
    bootstrap_medians,
    geometric_mean,
    launch_medians,
    median_interval,
    percentile,
    rank_test,
    ratio_interval,
    samples_needed,
)

times = st.integers(min_value=1, max_value=10**9)


def test_median_interval_uses_the_published_order_statistics():
    """For n = 10, 20 and 100 tables give the 2nd, 6th and 40th smallest and largest; below 6 there is no 95 % interval."""
    for n, rank in ((6, 1), (10, 2), (20, 6), (100, 40)):
        interval = median_interval(np.arange(1, n + 1))
        assert (interval.low, interval.high) == (rank, n + 1 - rank)
    assert median_interval([1, 2, 3, 4, 5]) is None


def test_median_interval_covers_the_median_of_a_skewed_distribution():
    """Of 2000 samples of a log-normal, at least 95 % of the intervals hold the true median (less three standard errors)."""
    generator = np.random.default_rng(0)
    covered = np.mean([median_interval(generator.lognormal(0, 0.5, 15)).contains(1.0) for _ in range(2000)])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)


def test_percentiles_need_the_number_of_samples_that_the_formula_gives():
    """p90, p95 and p99 at 95 % need 29, 59 and 299 samples; p99 at 99 % needs 459, as MLPerf has it."""
    assert [samples_needed(p) for p in (90, 95, 99)] == [29, 59, 299]
    assert samples_needed(99, confidence=0.99) == 459
    assert percentile(np.arange(28), 90).value is None
    assert percentile(np.arange(28), 90).samples_needed == 29
    assert percentile(np.arange(29), 90).value == np.percentile(np.arange(29), 90)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_bootstrap_medians_have_the_distribution_of_drawn_resamples(size):
    """The direct draw of a resample's median agrees with building each resample, for odd and even sizes."""
    generator = np.random.default_rng(3)
    values = generator.lognormal(0, 1, size)
    drawn = np.median(generator.choice(values, (20000, size)), axis=1)
    direct = bootstrap_medians([values], 20000, generator)
    possible = np.unique(np.round(np.concatenate([drawn, direct]), 12))
    shares = [np.searchsorted(np.sort(np.round(x, 12)), possible, side="right") / x.size for x in (drawn, direct)]
    assert np.abs(shares[0] - shares[1]).max() < 0.02


@given(st.lists(st.lists(times, min_size=1, max_size=9), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_bootstrap_medians_stay_within_the_samples(launches, seed):
    """No resample has a median outside the range of what was measured, whatever the sizes of the launches."""
    medians = bootstrap_medians(launches, 50, np.random.default_rng(seed))
    everything = np.concatenate(launches)
    assert everything.min() <= medians.min() and medians.max() <= everything.max()


@pytest.mark.parametrize("launches", [5, 10])
def test_ratio_interval_covers_the_true_ratio_when_launches_differ(launches):
    """With 8 % between launches and 60 iterations in each, the 95 % interval holds the true ratio at least 94 % of the time."""
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        a, b = ([x * generator.lognormal(0, 0.02, 60) for x in generator.lognormal(0, 0.08, launches)] for _ in range(2))
        covered += ratio_interval(a, b, resamples=500, seed=trial).contains(1.0)
    assert covered / 300 >= 0.94


def test_ratio_interval_is_seeded_and_refuses_single_launches():
    """The same seed gives the same interval, and one launch has no spread between launches."""
    a, b = np.random.default_rng(0).lognormal(0, 0.1, (2, 5, 20))
    assert ratio_interval(a, b, seed=4) == ratio_interval(a, b, seed=4) != ratio_interval(a, b, seed=5)
    with pytest.raises(ValueError, match="two launches"):
        ratio_interval(a[:1], b)


@given(st.lists(times, min_size=1, max_size=7, unique=True), st.lists(times, min_size=1, max_size=7))
def test_rank_test_equals_scipy_where_nothing_is_tied(a, b):
    """Without ties the exact Mann-Whitney test of SciPy is the reference."""
    b = sorted(set(b) - set(a)) or [10**9 + 1]
    assert rank_test(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_rank_test_counts_every_split_with_ties(a, b):
    """With ties the p-value is the share of all splits whose rank sum is at least as far from its mean."""
    ranks = stats.rankdata(a + b)
    mean = len(a) * ranks.mean()
    far = [abs(sum(split) - mean) >= abs(ranks[: len(a)].sum() - mean) - 1e-9 for split in combinations(ranks, len(a))]
    assert rank_test(a, b) == pytest.approx(np.mean(far))


def test_rank_test_of_separated_launches_has_the_known_floor():
    """3 v 3 can never be significant at 5 %; 4 v 4 and 5 v 5 can."""
    floors = [rank_test(range(n), range(n, 2 * n)) for n in (3, 4, 5)]
    assert floors == pytest.approx([0.1, 2 / 70, 2 / 252])


def test_rank_test_of_many_values_joins_its_approximation():
    """50 v 50 is exact and 51 v 51 approximate: for the same quantiles of shifted normals they differ by little."""
    normals = [stats.norm.ppf((np.arange(n) + 0.5) / n) for n in (50, 51)]
    exact, approximate = (rank_test(x, x + 0.4) for x in normals)
    assert exact == pytest.approx(approximate, rel=0.1)


def test_benjamini_hochberg_on_the_textbook_steps():
    """P (i) is multiplied by m / i and made monotone from the largest down, in the order given; no values give none."""
    assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert benjamini_hochberg([]).size == 0


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.floats(0.1, 10))
def test_geometric_mean_scales_with_its_values(values, factor):
    """Multiplying every ratio by a factor multiplies the mean by it; a zero has no geometric mean."""
    assert geometric_mean([factor * value for value in values]) == pytest.approx(factor * geometric_mean(values))
    with pytest.raises(ValueError, match="positive"):
        geometric_mean([*values, 0.0])


def test_launch_medians_weigh_launches_alike():
    """A launch of many iterations is one number, as one of few."""
    assert launch_medians([[1, 1, 1, 1, 1], [3]]).tolist() == [1, 3]
