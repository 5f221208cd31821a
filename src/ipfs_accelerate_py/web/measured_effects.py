"""What the switches of the web optimisations were measured to do, read from the launches of ``benchmarks/web_optimizations.py`` and of
``benchmarks/web_platform_audio.py``, which times whole requests of the platform.

Launches are compared only within one campaign: off and on ran interleaved, with the same model in the same browser on the same adapter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..paths import cache_folder, reference_folders

# Of every launch that had switches; ``{launch}`` and the others are tables of a store, or files of an export.
SWITCHED = """
    SELECT launch.facts::VARCHAR AS facts, launch.phases_ns['load'] / 1e6 AS ready_ms,
        launch.phases_ns['first_inference'] / 1e6 AS first_ms, launch.samples_ns,
        launch.launch_id, launch.campaign_id, launch.machine_hash,
        workload.model_class, workload.size, workload.weights, workload.batch_size, target.browser
    FROM {launch} AS launch JOIN {spec} AS spec USING (spec_hash) JOIN {workload} AS workload USING (workload_hash)
    JOIN {target} AS target USING (target_hash)
    WHERE launch.status = 'ok' AND launch.provenance = 'measured' AND json_exists(launch.facts, '$.switches')
    ORDER BY launch.campaign_id, launch.launch_id
"""
TABLES = ("launch", "spec", "workload", "target")
REFERENCE = "web-optimizations"  # what the names of such exports begin with, beside those that rate platforms
LOOPBACK = "loopback"
PAGE, PLATFORM = "the page alone", "requests of the platform"  # what was timed
# What a switch is meant to shorten, which is what decides whether it pays.
SHORTENS = {
    "precompilation": "navigation to first result",
    "parallel_loading": "navigation to ready",
    "gpu_audio": "one inference, from PCM to output",
    "readback": "one inference",
    "keep": "navigation to first result",
}
OFF = {"precompilation": False, "gpu_audio": False, "parallel_loading": False, "readback": "plain", "keep": False}

Adapter = tuple[str, ...]  # what the browser tells of it, and whether it is a software one


@dataclass(frozen=True)
class MeasuredEffect:
    """Of ``switch`` (one, or several joined by +) on ``quantity``: the ratio on / off of medians over launches, below 1 is faster, with its
    95 % interval, None with fewer than two launches a side."""

    switch: str
    quantity: str
    model: str  # class and size
    browser: str
    browser_version: str | None
    adapter: Adapter
    link: str
    runner: str  # PAGE or PLATFORM: what the switch was compared with differs between them
    ratio: float
    low: float | None
    high: float | None
    launches: tuple[int, int]  # off, on

    @property
    def pays(self) -> bool:
        return self.high is not None and self.high < 1

    @property
    def loses(self) -> bool:
        return self.low is not None and self.low > 1

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "adapter": " ".join(self.adapter), "provenance": "measured"}

    def __str__(self) -> str:
        interval = "too few launches for an interval" if self.low is None else f"{self.low:.2f} to {self.high:.2f}"
        off, on = self.launches
        where = f"{self.model}, {off} and {on} launches, {self.link}, {self.runner}"
        return f"{self.ratio:.2f}× the time of {self.quantity} ({interval}; {where})"


def store_path() -> Path:
    """Where the benchmark puts its launches unless it is told otherwise, and where the platform looks."""
    return cache_folder() / "web-optimizations.duckdb"


def adapter_of(device: Mapping[str, Any] | None) -> Adapter:
    """Names an adapter by the facts of it that a page gives; Firefox gives no name."""
    device = device or {}
    kind = {True: "software adapter", False: "GPU"}.get(device.get("software_adapter"), "of unknown kind")  # type: ignore[arg-type]
    return (*(str(device[key]) for key in ("vendor", "architecture", "device", "description") if device.get(key)), kind)


def known_effects() -> tuple[MeasuredEffect, ...]:
    """Those of this machine's benchmark and of the reference measurements. Nothing is opened where there are neither."""
    store = store_path()
    folders = tuple(str(folder) for folder in reference_folders() if folder.name.startswith(REFERENCE))
    changed = store.stat().st_mtime_ns if store.is_file() else None
    return _read(str(store), changed, folders) if changed or folders else ()


@lru_cache(maxsize=4)
def _read(store: str, changed: int | None, folders: tuple[str, ...]) -> tuple[MeasuredEffect, ...]:
    rows: list[dict[str, Any]] = []
    if changed is not None:
        rows += switched_launches(Path(store))
    for folder in folders:
        rows += _exported(Path(folder))
    return tuple(effects_of(rows))


def switched_launches(store: Path) -> list[dict[str, Any]]:
    """Rows of SWITCHED; their times are milliseconds. UserError where there is no such store."""
    from ..store.queries import run_sql

    columns, rows = run_sql(store, SWITCHED.format(**{name: name for name in TABLES}))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _exported(folder: Path) -> list[dict[str, Any]]:
    import duckdb

    quoted = {name: "'{}'".format(str(folder / f"{name}.parquet").replace("'", "''")) for name in TABLES}
    with duckdb.connect() as connection:
        found = connection.execute(SWITCHED.format(**quoted))
        columns = [column[0] for column in found.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def effects_of(rows: Iterable[Mapping[str, Any]]) -> list[MeasuredEffect]:
    """Every switch, or set of them, that a campaign had on and off for the same work."""
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        facts = json.loads(row["facts"])
        names = ("campaign_id", "machine_hash", "model_class", "size", "weights", "batch_size", "browser")
        # Links and recordings are told apart since the facts have them; without, by the case's name, whose last word is the link.
        link = facts.get("link") or ("shaped" if facts["case"].endswith(" shaped") else LOOPBACK)
        group = (
            *(row[name] for name in names),
            adapter_of(facts.get("device")),
            link,
            facts.get("recordings_s"),
            facts.get("runner", PAGE),
        )
        switches = "+".join(name for name, off in OFF.items() if facts["switches"].get(name, off) != off)
        groups.setdefault(group, {}).setdefault(switches, []).append({**row, "browser_facts": facts.get("browser") or {}})
    found = []
    for group, sides in groups.items():
        for switches, on in sides.items():
            if switches and "" in sides:
                found.append(_effect(group, switches, sides[""], on))
    return found


def _effect(
    group: tuple[Any, ...], switches: str, off: Sequence[dict[str, Any]], on: Sequence[dict[str, Any]]
) -> MeasuredEffect:
    from ..measure.statistics import launch_medians, ratio_interval

    _, _, model_class, size, _, _, browser, adapter, link, _, runner = group
    quantity = SHORTENS.get(switches, "navigation to first result")
    before, after = ([_times(row, quantity) for row in side] for side in (off, on))
    interval = ratio_interval(after, before) if min(len(before), len(after)) >= 2 else None
    return MeasuredEffect(
        switch=switches,
        quantity=quantity,
        model=f"{model_class} {size}",
        browser=browser,
        browser_version=on[-1]["browser_facts"].get("version"),
        adapter=adapter,
        link=link,
        runner=runner,
        ratio=float(np.median(launch_medians(after)) / np.median(launch_medians(before))),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        launches=(len(before), len(after)),
    )


def _times(row: Mapping[str, Any], quantity: str) -> list[float]:
    """Milliseconds of a launch: one of a start, one for each iteration of a steady time."""
    if quantity == "navigation to ready":
        return [float(row["ready_ms"])]
    if quantity == "navigation to first result":
        return [float(row["ready_ms"] + row["first_ms"])]
    return [ns / 1e6 for ns in row["samples_ns"]] or [float(row["first_ms"])]
