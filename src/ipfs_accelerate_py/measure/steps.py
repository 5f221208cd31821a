"""Where a series changes its level: segments of constant level that fit it best in the sum of absolute errors, as few as explain it.

The L1 norm, as a single odd value must not move a level. The number of segments is chosen by Schwarz's criterion for Laplace-distributed
errors (Schwarz, 1978, https://doi.org/10.1214/aos/1176344136).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MOST_SEGMENTS = 12
LEAST_LENGTH = 2  # a single odd value is an outlier; a second one makes it a level
LEAST_ERROR = 0.002  # of a logarithm: a series without any noise is not split at the last digit


def steps(values: Sequence[float], weights: Sequence[float] | None = None, most: int = MOST_SEGMENTS) -> list[int]:
    """Indices at which a new level begins, of logarithms of times (or any values of which LEAST_ERROR is nothing).

    Dynamic programming over all segmentations: n^2 segments, so for series of up to some hundreds. ValueError for values that are not
    finite.
    """
    series = np.asarray(values, dtype=float)
    count = len(series)
    if not np.isfinite(series).all():
        raise ValueError("a series with values that are not finite has no levels")
    if count < 2 * LEAST_LENGTH:
        return []
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=float)
    cost = _costs(series, weight)
    most = min(most, count // LEAST_LENGTH)
    best = np.full((most + 1, count + 1), math.inf)
    begin = np.zeros((most + 1, count + 1), dtype=int)
    best[0, 0] = 0.0
    for segments in range(1, most + 1):
        for end in range(segments, count + 1):
            totals = best[segments - 1, :end] + cost[:end, end]
            begin[segments, end] = int(totals.argmin())
            best[segments, end] = totals[begin[segments, end]]
    total = weight.sum()
    scores = [
        count * math.log(best[segments, count] / total + LEAST_ERROR) + _price(segments, count)
        for segments in range(1, most + 1)
    ]
    segments = int(np.argmin(scores)) + 1
    found, end = [], count
    for number in range(segments, 1, -1):
        end = int(begin[number, end])
        found.append(end)
    return found[::-1]


def _price(segments: int, count: int) -> float:
    """Of each segment a level and a place, both of which are fitted."""
    return 2 * segments * math.log(count)


def _costs(series: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[begin, end]: the sum of absolute distances of a segment from its weighted median."""
    count = len(series)
    cost = np.full((count, count + 1), math.inf)
    for begin in range(count):
        for end in range(begin + LEAST_LENGTH, count + 1):
            part, own = series[begin:end], weight[begin:end]
            order = np.argsort(part)
            middle = part[order][np.searchsorted(np.cumsum(own[order]), own.sum() / 2)]
            cost[begin, end] = float((np.abs(part - middle) * own).sum())
    return cost
