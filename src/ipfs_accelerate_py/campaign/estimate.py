"""How long a plan should take, from what the store knows about launches like these."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..spec import Spec
from .plan import Plan


@dataclass(frozen=True)
class Estimate:
    """Seconds for the launches of a plan. ``unknown`` counts launches of targets that the store has never seen: they are not in
    ``seconds``, because a guess would look like knowledge."""

    seconds: float
    unknown: int


def duration_row(spec: Spec, seconds: float) -> dict[str, Any]:
    """A launch that took ``seconds``, as ``estimate`` takes them."""
    platform, engine, browser = _target(spec)
    return {"spec_hash": spec.hash, "platform": platform, "engine": engine, "browser": browser, "duration_s": seconds}


def expected_s(spec: Spec, past: Iterable[Mapping[str, Any]]) -> float | None:
    """Seconds of one launch: the median of those of the same cell, else of the same target; None where there was none."""
    rows = list(past)
    same = [row["duration_s"] for row in rows if row["spec_hash"] == spec.hash]
    alike = [row["duration_s"] for row in rows if (row["platform"], row["engine"], row["browser"]) == _target(spec)]
    return statistics.median(same or alike) if same or alike else None


def estimate(plan: Plan, past: Iterable[Mapping[str, Any]]) -> Estimate:
    """``past`` has rows with spec_hash, platform, engine, browser and duration_s of launches that ended."""
    by_spec: dict[str, list[float]] = {}
    by_target: dict[tuple[str, str, str | None], list[float]] = {}
    for row in past:
        by_spec.setdefault(row["spec_hash"], []).append(row["duration_s"])
        by_target.setdefault((row["platform"], row["engine"], row["browser"]), []).append(row["duration_s"])
    seconds, unknown = 0.0, 0
    for key, _ in plan.order:
        known = by_spec.get(key) or by_target.get(_target(plan.specs[key]))
        if known:
            seconds += statistics.median(known)
        else:
            unknown += 1
    return Estimate(seconds, unknown)


def _target(spec: Spec) -> tuple[str, str, str | None]:
    return spec.target.platform, spec.target.engine, spec.target.browser
