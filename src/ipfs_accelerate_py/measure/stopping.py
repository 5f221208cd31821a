"""When the steady phase of a launch has enough iterations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .statistics import median_interval


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a launch measures. Times are seconds of the measured iterations themselves, by the clock that measures them.

    A phase ends when its test passes, and at the latest at its time or iteration limit. The minimum of iterations holds beyond the
    time limit, up to ``patience`` times it: where one iteration takes many seconds (a software adapter), fewer are taken.
    """

    warm_up_min_s: float = 0.0  # raised by platforms whose compiler works in the background: Platform.least_warm_up_s
    warm_up_max_s: float = 2.0
    warm_up_max_iterations: int = 5000
    warm_up_min_iterations: int = 3
    steady_min_s: float = 0.5  # iterations of a millisecond agree within 50 ms, but not with what comes half a second later
    steady_max_s: float = 3.0
    steady_max_iterations: int = 2000
    steady_min_iterations: int = 5
    patience: float = 4.0
    relative_half_width: float = 0.02  # of the 95 % interval of the launch's median
    batch_s: float = 0.05  # iterations are asked for in batches of at least this long

    @classmethod
    def quick(cls) -> Limits:
        """For a first look: less time, the same tests."""
        return cls(warm_up_max_s=1.0, warm_up_max_iterations=300, steady_min_s=0.2, steady_max_s=1.0, steady_max_iterations=500)


def relative_half_width(samples: ArrayLike) -> float | None:
    """Half the width of the median's 95 % interval over the median. None while there are too few samples for an interval, and
    where the median is 0: shorter than a tick of its clock.

    It speaks of this launch alone: what differs between launches is seen only by more launches.
    """
    interval = median_interval(samples)
    median = float(np.median(np.asarray(samples)))
    return (interval.high - interval.low) / 2 / median if interval and median > 0 else None


def precise(samples: ArrayLike, limit: float) -> bool:
    width = relative_half_width(samples)
    return width is not None and width <= limit
