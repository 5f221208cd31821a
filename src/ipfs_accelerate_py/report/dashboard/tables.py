"""The rows behind every view: one per cell (spec, machine and provenance), computed once a snapshot in SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...measure.statistics import Interval
from ..cells import FLAGS, KINDS, NUMBER_MARKS, launch_median_interval
from ..wording import count, model_labels, target_labels
from .snapshot import Row, Snapshot

# What a bootstrap takes is printed by benchmarks/dashboard.py; beyond this many cells, the range over launches stands in.
INTERVALS_UP_TO = 300
BOOTSTRAPPED, RANGE, NO_INTERVAL = "95 % interval over launches", "range of launch medians", "no interval: one launch"

FACETS = (
    "model_class", "size", "precision", "batch_size", "mode", "platform", "engine", "browser", "kind", "machine", "campaign",
)  # fmt: skip

_LAUNCHES = """
    CREATE OR REPLACE TEMP TABLE seen_launch AS
    SELECT *, format('{}-{}{}', spec_hash, machine_hash[:6], CASE provenance WHEN 'measured' THEN '' ELSE '-' || provenance END) AS cell
    FROM (
    WITH known AS ( -- a cell that could not be planned names no machine in older stores: it is that of its campaign
        SELECT campaign_id, arg_min(machine_hash, started_at) AS machine_hash
        FROM launch JOIN machine USING (machine_hash) WHERE machine.facts::VARCHAR <> '{}' GROUP BY ALL
    )
    SELECT launch_summary.* REPLACE (
            CASE machine.facts::VARCHAR WHEN '{}' THEN coalesce(known.machine_hash, machine.machine_hash) ELSE machine.machine_hash END
            AS machine_hash
        ),
        launch.phases_ns['start'] / 1e6 AS start_ms,
    FROM launch_summary
    JOIN launch USING (launch_id)
    JOIN machine ON machine.machine_hash = launch_summary.machine_hash
    LEFT JOIN known ON known.campaign_id = launch_summary.campaign_id
    )
"""
CELLS = """
    SELECT cell, spec_hash, workload_hash, target_hash, machine_hash, provenance,
        model_class, size, weights, origin, task, batch_size, sequence_length, new_tokens, precision, mode,
        platform, engine, device, browser,
        count(*) AS launches,
        count(*) FILTER (status = 'ok') AS launches_ok,
        count(*) FILTER (status = 'unsupported') AS launches_unsupported,
        median(median_ms) AS median_ms, min(median_ms) AS low_ms, max(median_ms) AS high_ms,
        sum(n_samples) FILTER (status = 'ok') AS samples,
        median(throughput_per_s) AS throughput_per_s,
        median(time_to_first_token_ms) AS time_to_first_token_ms, median(time_per_output_token_ms) AS time_per_output_token_ms,
        median(start_ms) FILTER (status = 'ok') AS start_ms, median(fetch_ms) FILTER (status = 'ok') AS fetch_ms,
        median(load_ms) FILTER (status = 'ok') AS load_ms, median(compile_ms) FILTER (status = 'ok') AS compile_ms,
        median(first_inference_ms) FILTER (status = 'ok') AS first_inference_ms,
        median(host_peak_mb) AS host_peak_mb, median(device_peak_mb) AS device_peak_mb, median(weights_mb) AS weights_mb,
        min(cosine) AS cosine, max(relative_error) AS relative_error, min(top1_agreement) AS top1_agreement,
        count(*) FILTER (status = 'ok' AND accuracy_passed) AS passed,
        count(*) FILTER (status = 'ok' AND NOT accuracy_passed) AS not_passed,
        bool_or(software_adapter) AS software_adapter, min(coverage_share) AS coverage_share,
        count(*) FILTER (status = 'ok' AND NOT steady) AS not_steady,
        arg_max(error_class, started_at) FILTER (status <> 'ok') AS error_class,
        arg_max(error_message, started_at) FILTER (status <> 'ok') AS error_message,
        max(started_at) AS latest_at
    FROM seen_launch GROUP BY ALL
    ORDER BY model_class, size, precision, batch_size, sequence_length, platform, engine, browser, device, cell
"""


def cells(snapshot: Snapshot) -> list[Row]:
    """One row per cell, with labels, what kind of cell it is, its interval, and the marks a reader must see beside its number."""
    return snapshot.kept("cells", lambda: _cells(snapshot))


def campaigns(snapshot: Snapshot) -> list[Row]:
    """Rows of ``campaign_summary``, latest first."""
    return snapshot.kept("campaigns", lambda: snapshot.rows("FROM campaign_summary ORDER BY campaign_id DESC"))


def machines(snapshot: Snapshot) -> dict[str, str]:
    """A short name by machine hash: processors and accelerators. Machines of one name are told apart by their hash."""
    named: dict[str, str] = {}
    for row in snapshot.rows("SELECT machine_hash, facts::VARCHAR AS facts FROM machine"):
        facts = json.loads(row["facts"])
        gpus = [str(gpu.get("name")) for gpu in facts.get("gpus") or []]
        model = " ".join(re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", " ", str(facts.get("cpu_model") or "")).split())
        cpu = f"{facts.get('logical_cpus', '?')} × {model}" if model else ""
        named[row["machine_hash"]] = ", ".join(filter(None, [*gpus, cpu])) or f"machine {row['machine_hash'][:6]}"
    names = list(named.values())
    return {key: name if names.count(name) == 1 else f"{name} ({key[:6]})" for key, name in named.items()}


def _cells(snapshot: Snapshot) -> list[Row]:
    found = snapshot.rows(CELLS) if shared(snapshot) else []
    models, targets, named = model_labels(found), target_labels(found), machines(snapshot)
    several = len({row["machine_hash"] for row in found if row["launches_ok"]}) > 1
    bounds = _intervals(snapshot, found)
    for row in found:
        row["machine"] = named.get(row["machine_hash"], "unknown")
        row["model"], row["target"] = models[row["workload_hash"]], targets[row["target_hash"]]
        row["kind"] = kind_of(row)
        # What is simulated or ran on another machine has a row of its own in every figure; the machine is on a line of its own.
        row["where"] = row["model"] + (" · simulated" if row["provenance"] == "simulated" else "")
        row["where"] += f"\n{row['machine']}" if several else ""
        row["interval"] = RANGE if row["launches_ok"] > 1 else NO_INTERVAL
        if row["launches_ok"] < 2:
            row["low_ms"] = row["high_ms"] = None
        elif row["cell"] in bounds:
            row["low_ms"], row["high_ms"], row["interval"] = bounds[row["cell"]].low, bounds[row["cell"]].high, BOOTSTRAPPED
        row["flags"] = _flags(row)
    return found


def shared(snapshot: Snapshot) -> bool:
    """Make the table of launches that the queries above share."""
    snapshot.kept("seen_launch", lambda: snapshot.rows(_LAUNCHES) or True)
    return True


def kind_of(row: Mapping[str, Any]) -> str:
    """A key of ``cells.KINDS``, by the rule of ``Cell.kind``."""
    if not row["launches_ok"]:
        return "unsupported" if row["launches_unsupported"] == row["launches"] else "failed"
    if row["provenance"] != "measured":
        return "simulated"
    if row["not_passed"]:
        return "inaccurate"
    return "measured" if row["passed"] == row["launches_ok"] else "unchecked"


def _flags(row: Mapping[str, Any]) -> str:
    """Marks beside the number, as the report has them: ``sw`` is a software adapter, ``~`` a series that never settled."""
    marks = [NUMBER_MARKS[row["kind"]]] if row["kind"] in NUMBER_MARKS else []
    marks += ["sw"] if row["software_adapter"] else []
    marks += ["cov"] if row["coverage_share"] is not None and row["coverage_share"] < 1 else []
    marks += ["~"] if row["not_steady"] else []
    marks += ["part"] if 0 < row["launches_ok"] < row["launches"] else []
    return " ".join(marks)


def meanings() -> dict[str, str]:
    """What each kind and each mark says."""
    return {**{name: " ".join(words) for name, words in KINDS.items()}, **FLAGS, "predicted": "△ predicted, not measured"}


def samples(snapshot: Snapshot, wanted: list[str]) -> dict[str, list[list[int]]]:
    """Steady iterations, ns, of each successful launch of these cells."""
    shared(snapshot)
    found: dict[str, list[list[int]]] = {}
    sql = "SELECT cell, samples_ns FROM seen_launch JOIN launch USING (launch_id) WHERE launch.status = 'ok' AND len(samples_ns) > 0"
    rows = snapshot.rows(
        f"{sql} AND list_contains($cells, cell) ORDER BY launch.campaign_id, launch.started_at, launch.order_index, launch_id",
        {"cells": wanted},
    )
    for row in rows:
        found.setdefault(row["cell"], []).append(row["samples_ns"])
    return found


def _intervals(snapshot: Snapshot, found: list[Row]) -> dict[str, Interval]:
    wanted = [row["cell"] for row in found if row["launches_ok"] > 1]
    if not wanted or len(wanted) > INTERVALS_UP_TO:
        return {}
    of_cells = samples(snapshot, wanted)
    return {
        cell: Interval(bounds.low / 1e6, bounds.high / 1e6)
        for cell, launches_ns in of_cells.items()
        if len(launches_ns) > 1
        for bounds in [launch_median_interval(launches_ns)]
    }


def sentence(row: Mapping[str, Any]) -> str:
    """How many launches ended well, for people."""
    return f"{row['launches_ok']} of {count(row['launches'], 'launch')}"
