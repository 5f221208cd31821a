"""Statistics of launches and their iterations: pure functions of numbers. The launch is the sample, not the iteration.

``scipy.stats`` is imported by the functions that compare, not by those that run inside a launch: it takes a second and 60 MB there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Launches = Sequence["ArrayLike"]  # per launch, the times of its steady iterations

EXACT_RANK_TEST = 100  # values; the count of all splits takes time and memory that grow with the fourth power of their number


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def inside(self, low: float, high: float) -> bool:
        return low <= self.low and self.high <= high

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Percentile:
    """``value`` is None where fewer than ``samples_needed`` samples were given: "n too small"."""

    value: float | None
    samples_needed: int


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """Interval of the median from order statistics, free of any distribution; None below six samples at 95 %.

    The k-th smallest and k-th largest of n samples miss the median with probability 2 P(Binomial(n, 1/2) < k)
    (David and Nagaraja, Order Statistics, 2003, section 7.1). The largest such k is taken.
    """
    from scipy import special

    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    tails = special.bdtr(np.arange(ordered.size // 2), ordered.size, 0.5)  # P(Binomial <= 0), P(Binomial <= 1), ...
    k = int(np.searchsorted(tails, (1 - confidence) / 2, side="right"))
    return Interval(float(ordered[k - 1]), float(ordered[-k])) if k > 0 else None


def samples_needed(percentile: float, confidence: float = 0.95) -> int:
    """Samples for which the largest lies above the percentile with this confidence: 1 - p^n >= confidence.

    90: 29, 95: 59, 99: 299 (Wilks, 1941; the same rule as MLPerf LoadGen's early stopping).
    """
    return math.ceil(math.log(1 - confidence) / math.log(percentile / 100))


def percentile(samples: ArrayLike, percent: float, confidence: float = 0.95) -> Percentile:
    """The percentile (0 < percent < 100), given only with enough samples."""
    needed = samples_needed(percent, confidence)
    values = np.asarray(samples, dtype=np.float64)
    return Percentile(float(np.percentile(values, percent)) if values.size >= needed else None, needed)


def launch_medians(launches: Launches) -> np.ndarray:
    """float64 [launches]. Launches weigh the same, however many iterations each has."""
    return np.array([np.median(np.asarray(launch, dtype=np.float64)) for launch in launches])


def bootstrap_medians(launches: Launches, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Median of launch medians in each resample, float64 [resamples]: launches are drawn, then iterations within each.

    An iteration-level resample of n values is never built. Its j-th smallest member is sorted[floor(n U)], with U the j-th
    order statistic of n uniforms, which is Beta(j, n + 1 - j): the same distribution from one draw (two for an even n).
    """
    ordered = [np.sort(np.asarray(launch, dtype=np.float64)) for launch in launches]
    sizes = np.array([launch.size for launch in ordered])
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    values = np.concatenate(ordered)

    drawn = generator.integers(len(ordered), size=(resamples, len(ordered)))
    n, start = sizes[drawn], starts[drawn]
    lower_rank = (n + 1) // 2
    lower = generator.beta(lower_rank, n + 1 - lower_rank)
    # Given the j-th, the next order statistic is j-th + (1 - j-th) * Beta(1, n - j).
    gap = 1 - generator.random(drawn.shape) ** (1 / np.maximum(n - lower_rank, 1))
    upper = np.where(n % 2 == 0, lower + (1 - lower) * gap, lower)
    last = n - 1  # rounding may give exactly 1
    medians = (
        values[start + np.minimum((n * lower).astype(np.int64), last)]
        + values[start + np.minimum((n * upper).astype(np.int64), last)]
    ) / 2
    return np.median(medians, axis=1)


def ratio_interval(a: Launches, b: Launches, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Interval of (median of a's launch medians) / (median of b's), by the hierarchical bootstrap. Needs two launches a side.

    A bootstrap of few launches is too narrow: it estimates the spread with 1/n in place of 1/(n-1), and takes normal for Student
    quantiles. The percentiles are widened by both (Hesterberg, What Teachers Should Know about the Bootstrap, 2015, section 5.3).
    """
    from scipy import stats

    if min(len(a), len(b)) < 2:
        raise ValueError("an interval over launches needs two launches on each side")
    generator = np.random.default_rng(seed)
    ratios = bootstrap_medians(a, resamples, generator) / bootstrap_medians(b, resamples, generator)
    smaller = min(len(a), len(b))
    student = stats.t.ppf((1 - confidence) / 2, len(a) + len(b) - 2)
    tail = stats.norm.cdf(math.sqrt(smaller / (smaller - 1)) * student)
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def rank_test(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the Wilcoxon-Mann-Whitney test, exact also with ties: every split of the values is counted.

    Counts subsets of the mid-ranks by size and sum (dynamic programming over doubled, so whole, ranks). The least possible value
    is 2 / C(m + n, m): 0.1 for 3 v 3, 0.029 for 4 v 4, 0.008 for 5 v 5. Beyond 100 values in all the normal approximation, corrected
    for ties, stands in.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.size + second.size > EXACT_RANK_TEST:
        from scipy import stats

        return float(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)
    _, place, ties = np.unique(np.concatenate([first, second]), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(ties) - ties + 1)[place]  # twice the mean of the tied places
    size, total = first.size, int(ranks.sum())
    counts = np.zeros((size + 1, total + 1))
    counts[0, 0] = 1
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, :-rank]  # the right side is evaluated first, so each rank is used at most once
    centre = size * total / ranks.size
    distance = abs(ranks[:size].sum() - centre)
    far = np.abs(np.arange(total + 1) - centre) >= distance - 1e-9
    return float(counts[size, far].sum() / counts[size].sum())


def least_p_value(m: int, n: int) -> float:
    """The least that ``rank_test`` can give for m against n launches: of all C(m + n, m) orders, two are wholly apart."""
    return min(1.0, 2 / math.comb(m + n, m))


def benjamini_hochberg(p_values: ArrayLike) -> np.ndarray:
    """p-values adjusted for the false discovery rate over a family of comparisons, in the order given."""
    from scipy import stats

    values = np.asarray(p_values, dtype=np.float64)
    return stats.false_discovery_control(values, method="bh") if values.size else values


def geometric_mean(values: ArrayLike) -> float:
    """Of positive ratios; the only mean under which normalising by another reference changes no order (Fleming, Wallace 1986)."""
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.all(array > 0):
        raise ValueError("a geometric mean needs positive values")
    return float(stats.gmean(array))
