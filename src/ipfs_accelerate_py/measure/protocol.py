"""The protocol of one launch: phases, first inference, warm-up until it settles, steady iterations until they are precise enough.

It owns no clock: every decision is made from the times that the stopwatch returns, so that native platforms and browsers, whose
clock is elsewhere, are measured by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..platforms.base import Sample
from .stopping import Limits, precise
from .stopwatch import Stopwatch
from .warm_up import settled

CLOCK_TICKS = 100  # a sample of fewer ticks of its clock is known to no better than 1 %


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was timed; the names are those of ``record.LaunchRecord``. ``outputs`` are the first inference's.

    ``clock_limited`` is True where the median sample is shorter than 100 ticks of the clock.
    """

    phases_ns: dict[str, int]
    warm_up_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    first_token_ns: tuple[int, ...]
    per_token_ns: tuple[int, ...]
    steady: bool
    stop_reason: str
    clock_resolution_ns: int
    clock_limited: bool
    outputs: dict[str, np.ndarray]


def measure(stopwatch: Stopwatch, limits: Limits, on_phase: Callable[[str], None]) -> Measurement:
    """Measure one launch; ``on_phase`` is called with each phase's name before it starts."""
    phases_ns = stopwatch.phases(on_phase)
    on_phase("first_inference")
    first, outputs = stopwatch.first()

    on_phase("warm_up")
    warm_up: list[Sample] = []
    if first.total_ns < limits.patience * limits.warm_up_max_s * 1e9:  # otherwise one more iteration would be over the limit
        warm_up, _ = _iterate(
            stopwatch,
            settled,
            limits,
            least=limits.warm_up_min_iterations,
            most=limits.warm_up_max_iterations,
            least_s=limits.warm_up_min_s,
            most_s=limits.warm_up_max_s,
            estimate_ns=first.total_ns,
        )
    warm_up_ns = _totals(warm_up)

    on_phase("steady")
    samples, stopped = _iterate(
        stopwatch,
        lambda times: precise(times, limits.relative_half_width),
        limits,
        least=limits.steady_min_iterations,
        most=limits.steady_max_iterations,
        least_s=limits.steady_min_s,
        most_s=limits.steady_max_s,
        estimate_ns=warm_up_ns[-1] if warm_up_ns else first.total_ns,
    )
    samples_ns = _totals(samples)

    generated = [sample.token_ns for sample in samples if sample.token_ns]
    return Measurement(
        phases_ns={**phases_ns, "first_inference": first.total_ns, "warm_up": sum(warm_up_ns), "steady": sum(samples_ns)},
        warm_up_ns=warm_up_ns,
        samples_ns=samples_ns,
        first_token_ns=tuple(tokens[0] for tokens in generated),
        per_token_ns=tuple(round((t[-1] - t[0]) / (len(t) - 1)) for t in generated if len(t) > 1),
        steady=settled(warm_up_ns, smallest_window=1),  # one that was cut short is judged by what there is
        stop_reason="precision" if stopped else "cap",
        clock_resolution_ns=stopwatch.clock_resolution_ns,
        clock_limited=bool(np.median(samples_ns) < CLOCK_TICKS * stopwatch.clock_resolution_ns),
        outputs=outputs,
    )


def _iterate(
    stopwatch: Stopwatch,
    enough: Callable[[list[int]], bool],
    limits: Limits,
    *,
    least: int,
    most: int,
    least_s: float,
    most_s: float,
    estimate_ns: int,
) -> tuple[list[Sample], bool]:
    """Iterations until ``enough(times)`` or a limit, and whether it was enough. ``estimate_ns`` is a guess of one iteration."""
    samples: list[Sample] = []
    spent_ns = 0
    most_ns = most_s * 1e9
    while True:
        # A batch of batch_s makes the round trip to a remote place rare, and ends soon after the time limit.
        batch_ns = min(limits.batch_s * 1e9, max(most_ns - spent_ns, 0))
        count = max(1, min(math.ceil(batch_ns / max(estimate_ns, 1)), most - len(samples)))
        batch = stopwatch.samples(count)
        samples += batch
        batch_total_ns = sum(_totals(batch))
        spent_ns += batch_total_ns
        estimate_ns = max(1, batch_total_ns // count)

        if len(samples) >= least and spent_ns >= least_s * 1e9 and enough(list(_totals(samples))):
            return samples, True
        over = spent_ns >= most_ns and (len(samples) >= least or spent_ns >= limits.patience * most_ns)
        if over or len(samples) >= most:
            return samples, False


def _totals(samples: list[Sample]) -> tuple[int, ...]:
    return tuple(sample.total_ns for sample in samples)
