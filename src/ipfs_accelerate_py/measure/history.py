"""One cell over time: a point a campaign, steps between them, and whether each step is one by its launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .compare import Comparison, compare_all
from .record import LaunchRecord
from .statistics import Launches, launch_medians
from .steps import steps


@dataclass(frozen=True)
class Point:
    """A campaign's launches of the cell: when the first started, their median in ms, and the software that ran them."""

    campaign: str
    started_at: str
    median_ms: float
    launches: int
    software: dict[str, str]


@dataclass(frozen=True)
class Step:
    """From ``before`` to ``after`` the level changes. ``comparison`` is of the launches after the step against those before it: ``slower``
    is a regression. ``changed`` has what differs in the software, old and new version."""

    before: Point
    after: Point
    comparison: Comparison
    changed: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class History:
    """Points in order of time, and the steps between their levels; no step means one level."""

    points: tuple[Point, ...]
    steps: tuple[Step, ...]

    @property
    def regressions(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.comparison.verdict == "slower")


def history(records: Sequence[LaunchRecord]) -> History:
    """The history of one cell: launches of one spec on one machine, of one provenance, that ended well.

    UserError where they are of several. A step needs two campaigns on each side; all steps are one family of comparisons.
    """
    good = [record for record in records if record.status == "ok"]
    if not good:
        raise UserError("There is no launch that ended well, so no history.")
    if len({(record.spec.hash, str(record.machine), record.provenance) for record in good}) > 1:
        raise UserError("A history is of one cell on one machine, and these launches are of several.")
    by_campaign: dict[str, list[LaunchRecord]] = {}
    for record in sorted(good, key=lambda each: each.started_at):
        by_campaign.setdefault(record.campaign_id, []).append(record)
    campaigns = sorted(by_campaign.values(), key=lambda launches: launches[0].started_at)
    points = [_point(launches) for launches in campaigns]
    pairs = level_pairs(
        [point.median_ms for point in points], [[record.samples_ns for record in launches] for launches in campaigns]
    )
    compared = compare_all(pairs) if pairs else {}
    found = [
        Step(points[place - 1], points[place], compared[place], _changed(points[place - 1].software, points[place].software))
        for place in pairs
    ]
    return History(tuple(points), tuple(found))


def level_pairs(medians_ms: Sequence[float], samples_ns: Sequence[Launches]) -> dict[int, tuple[Launches, Launches]]:
    """Where a new level begins, by the campaign's place in order of time: the launches of that level, and those of the level before.

    ``medians_ms`` has a campaign's median, ``samples_ns`` the samples of its launches. Whether a step is one, their comparison tells.
    """
    places = steps([float(np.log(median)) for median in medians_ms], [len(launches) for launches in samples_ns])
    bounds = [0, *places, len(medians_ms)]
    pairs: dict[int, tuple[Launches, Launches]] = {}
    for index, place in enumerate(places):
        before = [launch for launches in samples_ns[bounds[index] : place] for launch in launches]
        after = [launch for launches in samples_ns[place : bounds[index + 2]] for launch in launches]
        pairs[place] = (after, before)
    return pairs


def _point(launches: Sequence[LaunchRecord]) -> Point:
    medians = launch_medians([record.samples_ns for record in launches])
    first = launches[0]
    return Point(first.campaign_id, first.started_at, float(np.median(medians)) / 1e6, len(launches), software(first))


def software(record: LaunchRecord) -> dict[str, str]:
    """Versions of what may change a result: packages, Python, our own commit, the browser, the driver."""
    environment: dict[str, Any] = dict(record.environment)
    found = {str(name): str(version) for name, version in (environment.get("packages") or {}).items()}
    found |= {name: str(environment[name]) for name in ("python", "commit") if environment.get(name)}
    browser = record.facts.get("browser")
    if isinstance(browser, dict) and browser.get("version"):
        found[str(browser.get("key", "browser"))] = str(browser["version"])
    for gpu in record.machine.get("gpus") or []:
        found["driver"] = str(gpu.get("driver"))
    return found


def _changed(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    names = sorted(set(before) | set(after))
    pairs = {name: (before.get(name, "none"), after.get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
