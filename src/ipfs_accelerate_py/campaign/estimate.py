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
