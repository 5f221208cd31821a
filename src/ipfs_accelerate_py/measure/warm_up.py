"""Whether a running series of iterations has left its warm-up: its last two adjacent windows look alike.

In the spirit of pyperf's calibration of warm-ups (``pyperf/_worker.py``), which compares two halves by mean, quartiles, spread and first
value. Here the median, the quartiles and the order of the two windows are compared, in both directions: a series that grows slower (a
processor that heats up) is no steadier than one that grows faster. Some programs never settle (Barrett et al., Virtual Machine
Warmup Blows Hot and Cold, 2017, arXiv 1602.00602), so whoever asks needs a limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .statistics import rank_test

WINDOW = 10  # a drift of 1 % an iteration moves the next ten by twice the median's tolerance
LARGEST_WINDOW = 20
MEDIAN_TOLERANCE = 0.05  # a larger difference of the medians is a change, whatever the noise
QUARTILE_TOLERANCE = 0.10  # a knee within the older window moves its quartile before its median
FEW_TOLERANCE = 0.10  # of medians of fewer than WINDOW values, which are noisier
DRIFT = 0.01  # a smaller difference does not matter, however significant


def settled(series: ArrayLike, smallest_window: int = WINDOW) -> bool:
    """True when the last two windows of the series (times, oldest first) agree. Needs three values and two whole windows.

    A window is half of the series, at most 20 values, so that a slow start drops out of it. ``smallest_window`` 1 judges also a short
    series, of few slow iterations, by as much as it can tell.
    """
    values = np.asarray(series, dtype=np.float64)
    window = min(values.size // 2, LARGEST_WINDOW)
    if values.size < 3 or window < smallest_window:
        return False
    older, newer = values[-2 * window : -window], values[-window:]
    change = _changes(older, newer)
    if change[1] > (FEW_TOLERANCE if window < WINDOW else MEDIAN_TOLERANCE):
        return False
    if window >= WINDOW and change.max() > QUARTILE_TOLERANCE:
        return False
    return bool(change[1] <= DRIFT) or rank_test(older, newer) >= 0.05


def _changes(older: np.ndarray, newer: np.ndarray) -> np.ndarray:
    """Relative changes of the first quartile, the median and the third quartile, without sign.

    A time of 0 is shorter than a tick of its clock: no change where both are 0, an infinite one where one is.
    """
    before, after = np.percentile(older, [25, 50, 75]), np.percentile(newer, [25, 50, 75])
    difference, least = np.abs(before - after), np.minimum(before, after)
    return np.divide(difference, least, out=np.where(difference > 0, np.inf, 0.0), where=least > 0)
