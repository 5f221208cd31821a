"""The compatibility matrix: every model class on every platform and browser, rated by what stores and reference data measured."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

from ..models.registry import model_classes
from ..spec import BROWSER_PLATFORMS, PLATFORMS, identity
from ..store import queries
from ..store.exchange import import_
from ..web.browsers import KNOWN
from ..web.measured_effects import MeasuredEffect, effects_of, switched_launches
from .rating import NOT_MEASURED, RULE, Launch, Rated, better, medians, rate

FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal")
LAUNCHES = """
    SELECT launch_summary.* EXCLUDE (label), machine.facts AS machine, launch.facts ->> '$.browser.version' AS browser_version,
        launch.facts -> '$.device' AS session_device, launch.facts ->> '$.threads' AS threads,
        launch.facts ->> '$.kv_cache_bits' AS kv_cache_bits,
        TRY_CAST(launch.facts ->> '$.coverage_time_share' AS DOUBLE) AS time_share,
        launch.facts ->> '$.coverage_time_unknown' AS time_unknown
    FROM launch_summary
    JOIN launch USING (launch_id)
    JOIN machine ON machine.machine_hash = launch_summary.machine_hash
    WHERE NOT coalesce(json_exists(launch.facts, '$.switches'), false)  -- those compare a switch on and off, not platforms
    ORDER BY started_at, launch_id
"""
PROBED = """
    SELECT (plan -> '$.probed')::VARCHAR FROM campaign
    WHERE (plan -> '$.probed') IS NOT NULL AND coalesce((plan ->> '$.request.simulate'), 'false') = 'false' ORDER BY campaign_id
"""


@dataclass(frozen=True)
class Column:
    """A platform, in a browser where it lives in one."""

    platform: str
    browser: str | None = None

    @property
    def label(self) -> str:
        return f"{self.platform} · {self.browser}" if self.browser else self.platform


@dataclass(frozen=True)
class Row:
    """One target of one model class on one machine."""

    model_class: str
    machine: str  # key of Matrix.machines
    platform: str
    engine: str
    browser: str | None
    device: str
    rated: Rated


@dataclass(frozen=True)
class Matrix:
    """``launches`` are measured ones only; ``left_out`` counts the others. ``machines`` has a name by key. ``absent`` has the reason for
    each platform (and browser) that no campaign found where it asked; ``capabilities`` what browsers answered, by browser and platform.
    ``reports`` is the address of a report that shows the launches of a spec on a machine; ``effects`` what switches of the page were
    measured to do."""

    launches: tuple[Launch, ...]
    left_out: int
    machines: Mapping[str, str]
    families: Mapping[str, str]  # model class -> family
    absent: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    capabilities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reports: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by key of machines and hash of the spec
    effects: tuple[MeasuredEffect, ...] = ()

    @cached_property
    def medians(self) -> dict[Any, float]:
        return medians(self.launches)

    def rows(self, mode: str = "inference") -> list[Row]:
        """Every target that was tried, finest division, in the order of classes, machines and platforms."""
        rows = []
        for key, launches in self._grouped(
            "model_class", "machine_key", "platform", "engine", "browser", "device", mode=mode
        ).items():
            model_class, machine, platform, engine, browser, device = key
            rated = rate(launches, self.medians)
            rows.append(Row(model_class, machine, platform, engine, browser, device, rated))
        classes, machines, platforms = list(self.families), list(self.machines), self.platforms

        def place(row: Row) -> tuple[int, int, int, str, str, str]:
            where = machines.index(row.machine), platforms.index(row.platform)
            return classes.index(row.model_class), *where, row.engine, row.browser or "", row.device

        return sorted(rows, key=place)

    @cached_property
    def platforms(self) -> tuple[str, ...]:
        """Our own in their usual order, then those of other packages that were launched."""
        return tuple(dict.fromkeys((*PLATFORMS, *sorted({launch["platform"] for launch in self.launches}))))

    @cached_property
    def columns(self) -> list[Column]:
        """Every platform, those of browsers once for each browser that the program knows."""
        return [
            Column(platform, browser)
            for platform in self.platforms
            for browser in (KNOWN if platform in BROWSER_PLATFORMS else (None,))
        ]

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str, str | None], Rated]:
        groups = self._grouped("model_class", "machine_key", "platform", "browser")
        return {key: rate(launches, self.medians) for key, launches in groups.items()}

    def cell(self, model_class: str, column: Column) -> tuple[Rated, str | None]:
        """The best rating over machines, and the machine that gave it."""
        return self._best((model_class, column.platform, column.browser), lambda key: (key[0], key[2], key[3]))

    def platform_cell(self, model_class: str, platform: str) -> tuple[Rated, str | None]:
        """The same, over browsers as well."""
        return self._best((model_class, platform), lambda key: (key[0], key[2]))

    def _best(self, wanted: tuple[Any, ...], of: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> tuple[Rated, str | None]:
        found = {key: rated for key, rated in self._cells.items() if of(key) == wanted}
        if not found:
            reason = self.absent.get((wanted[1], wanted[2] if len(wanted) > 2 else None), NOT_MEASURED)
            return Rated(rating="Unavailable", reasons=(reason,)), None
        best = reduce(better, found.values())
        return best, next(key[1] for key, rated in found.items() if rated is best)

    def _grouped(self, *names: str, mode: str = "inference") -> dict[tuple[Any, ...], list[Launch]]:
        groups: dict[tuple[Any, ...], list[Launch]] = {}
        for launch in self.launches:
            if launch["mode"] == mode:
                groups.setdefault(tuple(launch[name] for name in names), []).append(launch)
        return groups

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": RULE,
            "provenance": "measured",
            "launches_left_out": self.left_out,
            "machines": dict(self.machines),
            "families": dict(self.families),
            "cells": [
                {"model_class": name, **asdict(column), "machine": machine, **asdict(rated)}
                for name in self.families
                for column in self.columns
                for rated, machine in (self.cell(name, column),)
            ],
            "targets": [_flat(row) for row in self.rows()],
            "training": [_flat(row) for row in self.rows("training")],
        }


def read_matrix(sources: Iterable[Path]) -> Matrix:
    """The matrix of all sources: stores, and folders or files that ``export`` wrote. A launch that two of them hold counts once."""
    launches: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        imported = Path(scratch) / "imported.duckdb"
        stores = []
        for source in sources:
            if source.is_dir() or source.suffix == ".json":
                import_(imported, source)
            else:
                stores.append(source)
        reports: dict[str, str] = {}  # by launch
        probed: list[dict[str, Any]] = []
        switched: dict[str, dict[str, Any]] = {}  # by launch
        for store in ([imported] if imported.exists() else []) + stores:
            probed += [json.loads(row[0]) for row in queries.run_sql(store, PROBED)[1]]
            switched |= {row["launch_id"]: row for row in switched_launches(store)}
            columns, rows = queries.run_sql(store, LAUNCHES)
            report = store.with_suffix(".html")
            for row in rows:
                launch = dict(zip(columns, row, strict=True))
                launches.setdefault(launch["launch_id"], launch)
                if report.exists():
                    reports[launch["launch_id"]] = report.resolve().as_uri()
    absent, capabilities = _answers(probed)
    matrix = make_matrix(list(launches.values()))
    found = {
        (launch["machine_key"], launch["spec_hash"]): reports[launch["launch_id"]]
        for launch in matrix.launches
        if launch["launch_id"] in reports
    }
    effects = tuple(effects_of(switched.values()))
    return replace(matrix, absent=absent, capabilities=capabilities, reports=found, effects=effects)


def make_matrix(launches: Sequence[dict[str, Any]]) -> Matrix:
    """From rows of LAUNCHES. What is not measured is counted and left out."""
    measured = [launch for launch in launches if launch["provenance"] == "measured"]
    for launch in measured:
        for name in ("machine", "session_device"):
            if isinstance(launch[name], str):
                launch[name] = json.loads(launch[name])
    # The row of a cell that could not even be planned names no machine in older stores: it is the one of its campaign.
    of_campaign = {launch["campaign_id"]: launch["machine"] for launch in measured if launch["machine"]}
    machines: dict[str, str] = {}
    for launch in measured:
        facts = launch["machine"] or of_campaign.get(launch["campaign_id"], {})
        gpus = [gpu.get("name") for gpu in facts.get("gpus") or []]
        own = (facts.get("machine_id"), facts.get("cpu_model"), facts.get("logical_cpus"), gpus)
        launch["machine"], launch["machine_key"] = facts, identity(own)
        name = ", ".join(
            filter(None, [*map(str, gpus), f"{facts.get('logical_cpus', '?')} × {facts.get('cpu_model', 'unknown CPU')}"])
        )
        machines.setdefault(launch["machine_key"], name)
    named = {name: found.family for name, found in model_classes().items()}
    families = {name: family for family in FAMILIES for name in named if named[name] == family}
    families |= {launch["model_class"]: "other" for launch in measured if launch["model_class"] not in families}
    return Matrix(
        tuple(measured), len(launches) - len(measured), dict(sorted(machines.items(), key=lambda item: item[1])), families
    )


def _answers(probed: Iterable[Mapping[str, Any]]) -> tuple[dict[tuple[str, str | None], str], dict[str, dict[str, Any]]]:
    """``Matrix.absent`` and ``Matrix.capabilities`` of what campaigns found before they began, oldest first."""
    absent: dict[tuple[str, str | None], str] = {}
    there: set[tuple[str, str | None]] = set()
    capabilities: dict[str, dict[str, Any]] = {}
    for platform, answer in (item for campaign in probed for item in campaign.items()):
        missing = answer.get("facts", {}).get("unavailable_browsers", {})
        if "devices" not in answer:
            missing = dict.fromkeys(KNOWN if platform in BROWSER_PLATFORMS else (None,), answer)
        for browser, why in missing.items():
            absent[platform, browser] = why["reason"]
            capabilities.setdefault(str(browser), {}).setdefault(platform, {"available": False, "reason": why["reason"]})
        for device in answer.get("devices", ()):
            browser = device["facts"].get("browser")
            there |= {(platform, browser), (platform, None)}
            if browser:
                capabilities.setdefault(browser, {})[platform] = {"available": True, **device["facts"][platform]}
    for platform in BROWSER_PLATFORMS:
        reasons = [reason for (name, browser), reason in absent.items() if name == platform and browser]
        if reasons:
            absent[platform, None] = reasons[0]
    return {key: reason for key, reason in absent.items() if key not in there}, capabilities


def _flat(row: Row) -> dict[str, Any]:
    own = asdict(row)
    rated = own.pop("rated")
    return {**own, **rated}
