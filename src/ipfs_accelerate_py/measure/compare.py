"""Is one set of launches faster than another? The estimand is the ratio of medians; the launch is the sample."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
from scipy import stats

from ..errors import UserError
from .record import LaunchRecord
from .statistics import Interval, Launches, benjamini_hochberg, launch_medians, least_p_value, rank_test, ratio_interval

MARGIN = 1.03  # a ratio within 1/1.03 .. 1.03 is of no practical consequence
SIGNIFICANCE = 0.05
VERDICTS = ("faster", "slower", "equal", "not decided")

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """a against b. ``ratio`` is a's median time over b's: below 1, a is faster. ``verdict`` is about a.

    ``adjusted_p`` is ``p_value`` after Benjamini-Hochberg over the comparisons made together; None where the launches are so few that
    no order of them could say faster or slower, which is no part of that family. ``interval`` is None with one launch on a side.
    ``more_launches`` estimates how many more on each side would decide; None where decided or nothing tells the spread.
    """

    ratio: float
    interval: Interval | None
    p_value: float
    adjusted_p: float | None
    verdict: str
    more_launches: int | None

    @property
    def text(self) -> str:
        """The verdict for people: ``not decided, 4 more launches would``."""
        if self.verdict != "not decided":
            return self.verdict
        return "not decided" if self.more_launches is None else f"not decided, {self.more_launches} more launches would"


def compare(a: Launches, b: Launches, *, seed: int = 0, resamples: int = 2000) -> Comparison:
    """Compare two sets of launches, each launch the times of its steady iterations in any one unit.

    ``faster`` and ``slower`` need all of: exact rank test on launch medians at 5 %, bootstrap interval without 1, and a ratio beyond 3 %.
    ``equal`` needs the interval within 3 %. Fewer than four launches a side can never pass the rank test.
    """
    return compare_all({None: (a, b)}, seed=seed, resamples=resamples)[None]


def compare_records(a: Sequence[LaunchRecord], b: Sequence[LaunchRecord]) -> Comparison:
    """``compare`` for launches as they are stored. UserError where what was measured would meet what was simulated."""
    provenances = sorted({record.provenance for record in (*a, *b)})
    if len(provenances) > 1:
        raise UserError(f"What was {provenances[0]} is not compared with what was {provenances[1]}: its times are made up.")
    return compare([record.samples_ns for record in a], [record.samples_ns for record in b])


def compare_all(
    pairs: Mapping[Key, tuple[Launches, Launches]], *, seed: int = 0, resamples: int = 2000
) -> dict[Key, Comparison]:
    """Compare every pair as one family: p-values are adjusted for the false discovery rate.

    A pair of so few launches that no times could call it faster or slower takes no part in the family: it would only make verdicts
    of the others harder to reach. That is known from the numbers of launches, before any time is looked at, so what is left is a
    family like any other. Such a pair can still be ``equal``, which the interval says.
    """
    raw = {key: _evidence(a, b, seed, resamples) for key, (a, b) in pairs.items()}
    family = [key for key, (a, b) in pairs.items() if _can_differ(len(a), len(b))]
    adjusted = dict(zip(family, benjamini_hochberg([raw[key].p_value for key in family]).tolist(), strict=True))
    return {
        key: _decide(replace(raw[key], adjusted_p=adjusted.get(key)), a, b, max(1, len(family)))
        for key, (a, b) in pairs.items()
    }


def compare_matrix(
    launches: Mapping[Key, Launches], *, seed: int = 0, resamples: int = 2000
) -> dict[tuple[Key, Key], Comparison]:
    """Every one against every other, each pair once, in the order given."""
    pairs = {(a, b): (launches[a], launches[b]) for a, b in combinations(launches, 2)}
    return compare_all(pairs, seed=seed, resamples=resamples)


def _can_differ(m: int, n: int) -> bool:
    """Whether m against n launches can be faster or slower at all: there is an interval, and the rank test can reach SIGNIFICANCE."""
    return min(m, n) > 1 and least_p_value(m, n) <= SIGNIFICANCE


def _evidence(a: Launches, b: Launches, seed: int, resamples: int) -> Comparison:
    if not len(a) or not len(b):
        raise ValueError("a comparison needs at least one launch on each side")
    medians_a, medians_b = launch_medians(a), launch_medians(b)
    if not (np.all(medians_a > 0) and np.all(medians_b > 0)):
        raise ValueError("a launch's median time is 0: its clock is too coarse for a ratio")
    p_value = rank_test(medians_a, medians_b)
    return Comparison(
        ratio=float(np.median(medians_a) / np.median(medians_b)),
        interval=ratio_interval(a, b, resamples=resamples, seed=seed) if min(len(a), len(b)) > 1 else None,
        p_value=p_value,
        adjusted_p=None,
        verdict="not decided",
        more_launches=None,
    )


def _decide(evidence: Comparison, a: Launches, b: Launches, family: int) -> Comparison:
    ratio, interval = evidence.ratio, evidence.interval
    if interval is None:
        return evidence
    if interval.inside(1 / MARGIN, MARGIN):
        return replace(evidence, verdict="equal")
    beyond = not 1 / MARGIN <= ratio <= MARGIN
    if beyond and evidence.adjusted_p is not None and evidence.adjusted_p <= SIGNIFICANCE and not interval.contains(1.0):
        return replace(evidence, verdict="faster" if ratio < 1 else "slower")
    needed = _launches_needed(launch_medians(a), launch_medians(b), SIGNIFICANCE / family)
    return replace(evidence, more_launches=max(1, needed - min(len(a), len(b))))


def _launches_needed(medians_a: np.ndarray, medians_b: np.ndarray, significance: float) -> int:
    """Launches a side that decide with a probability of 80 %, if the ratio and the spread between launches are as seen so far.

    The median of n normal values has the standard error sqrt(pi/2) s / sqrt(n). What must be resolved is the distance of the log ratio
    from 0 where it is beyond the margin, from the margin where it is within, and not less than a third of the margin: nearer to it, more
    launches would move the ratio across it and back.
    """
    margin = math.log(MARGIN)
    distance = abs(math.log(np.median(medians_a) / np.median(medians_b)))
    resolve = distance if distance > margin else max(margin - distance, margin / 3)
    spread = math.sqrt((np.log(medians_a).var(ddof=1) + np.log(medians_b).var(ddof=1)) / 2)
    quantiles = stats.norm.ppf(1 - significance / 2) + stats.norm.ppf(0.8)
    needed = math.ceil(math.pi / 2 * 2 * (quantiles * spread / resolve) ** 2)
    if distance > margin:
        # No n below this reaches the significance at all, however far apart the launches are.
        while 2 / math.comb(2 * needed, needed) > significance:
            needed += 1
    return needed


@dataclass(frozen=True)
class FalsePositives:
    """``splits`` comparisons of launches with themselves, of which ``positives`` said faster or slower.

    Splits share their launches, so a rate is known less well than from as many independent experiments, and a single set of launches may
    show more than the true rate. Average over several specs.
    """

    splits: int
    positives: int

    @property
    def rate(self) -> float:
        return self.positives / self.splits


def aa_check(
    launches: Launches, splits: int = 200, seed: int = 0, per_side: int | None = None, resamples: int = 2000
) -> FalsePositives:
    """This machine's own false-positive rate: launches of one spec, in the order they ran, compared with themselves.

    In each split the launches are paired with their neighbours in time, ``per_side`` pairs are drawn (all by default), and a
    coin puts one of each pair on either side: interleaved, as a campaign interleaves specs.
    """
    pairs = np.arange(len(launches) // 2 * 2).reshape(-1, 2)
    drawn = len(pairs) if per_side is None else per_side
    if not 2 <= drawn <= len(pairs):
        raise ValueError(f"{len(launches)} launches do not make 2 to {len(pairs)} pairs of {drawn}")
    generator = np.random.default_rng(seed)
    positives = 0
    for split in range(splits):
        sides = generator.permuted(generator.permutation(pairs)[:drawn], axis=1)
        a, b = ([launches[index] for index in side] for side in sides.T)
        positives += compare(a, b, seed=split, resamples=resamples).verdict in ("faster", "slower")
    return FalsePositives(splits, positives)
