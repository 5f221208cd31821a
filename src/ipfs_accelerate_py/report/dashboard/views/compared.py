"""What is faster than what: verdicts between platforms, effects of a single change, and steps between campaigns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....measure.compare import Comparison, compare_all
from ....measure.history import level_pairs
from ....measure.statistics import Launches
from ... import figures
from .. import tables
from ..filters import Filters
from ..snapshot import Row, Snapshot
from .base import Found, View, with_fields

# What one comparison takes is printed by benchmarks/dashboard.py: this many are waited for once, then kept.
COMPARED_UP_TO = 200
BETWEEN = "Only measured cells whose output check passed are compared, on one machine and the same work."


def _verdicts(snapshot: Snapshot, filters: Filters) -> Found:
    """Each cell against the fastest of its workload and machine. A software adapter competes with nothing, as in the report."""
    groups: dict[str, list[Row]] = {}
    for row in filters.keep(_checked(snapshot)):
        groups.setdefault(row["where"] + row["machine_hash"], []).append(row)
    pairs = []
    alone: list[Row] = []
    for group in groups.values():
        order = sorted(group, key=lambda row: row["median_ms"])
        real = [row for row in order if not row["software_adapter"]] or order
        alone += [_compared(real[0], None, "fastest", "nothing to compare with" if len(real) == 1 else "")]
        pairs += [(row, real[0]) for row in real[1:]]
        alone += [_compared(row, None, "not compared: software adapter", "") for row in order if row not in real]
    compared, note, partial = _comparisons(snapshot, pairs)
    rows = [*alone, *(_compared(a, found, found.text, b["target"]) for (a, b), found in compared)]
    rows.sort(key=lambda row: (row["where"], row["median_ms"]))
    return Found(rows, note or BETWEEN, partial)


def _compared(row: Row, found: Comparison | None, verdict: str, against: str) -> Row:
    interval = found.interval if found else None
    return with_fields(
        row,
        ("median_ms", "low_ms", "high_ms", "launches_ok"),
        verdict=verdict,
        against=against,
        ratio=found.ratio if found else (1.0 if verdict == "fastest" else None),
        ratio_low=interval.low if interval else None,
        ratio_high=interval.high if interval else None,
        adjusted_p=found.adjusted_p if found else None,
    )


# A change -> how a cell without it is made from the cell with it; None: this cell has not the change.
CHANGES: dict[str, Callable[[Row], dict[str, Any] | None]] = {
    "{precision} instead of float32": lambda row: {"precision": "float32"} if row["precision"] != "float32" else None,
    "WebGPU instead of wasm": lambda row: {"platform": "wasm"} if row["platform"] == "webgpu" else None,
    "WebNN instead of wasm": lambda row: {"platform": "wasm"} if row["platform"] == "webnn" else None,
    "OpenVINO instead of onnxruntime": lambda row: (
        {"platform": "cpu", "engine": "onnxruntime"} if row["platform"] == "openvino" else None
    ),
    "onnxruntime instead of torch": lambda row: (
        {"engine": "torch"} if (row["platform"], row["engine"]) == ("cpu", "onnxruntime") else None
    ),
    "{device} instead of the default": lambda row: {"device": "default"} if row["device"].endswith("threads") else None,
}
_SAME = (
    "machine_hash", "model_class", "size", "weights", "origin", "task", "batch_size", "sequence_length", "new_tokens", "mode", "precision",
    "platform", "engine", "device", "browser",
)  # fmt: skip


def _effects(snapshot: Snapshot, filters: Filters) -> Found:
    """Pairs of cells that differ in one choice."""
    cells = _checked(snapshot)
    by_identity = {tuple(row[name] for name in _SAME): row for row in cells}
    pairs, told = [], {}
    for row in filters.keep(cells):
        for change, without in CHANGES.items():
            altered = without(row)
            other = by_identity.get(tuple({**row, **altered}[name] for name in _SAME)) if altered else None
            if other:
                told[row["cell"], other["cell"]] = change.format(**row)
                pairs.append((row, other))
    compared, note, partial = _comparisons(snapshot, pairs)
    rows = []
    for (a, b), found in compared:
        row = _compared(a, found, found.text, b["target"])
        rows.append({**row, "effect": told[a["cell"], b["cell"]], "on_ms": a["median_ms"], "off_ms": b["median_ms"]})
    rows.sort(key=lambda row: (row["effect"], row["ratio"]))
    return Found(rows, note or BETWEEN, partial)


_BY_CAMPAIGN = """
    SELECT cell, campaign_id, min(started_at) AS started_at, count(*) AS launches_ok, median(median_ms) AS median_ms,
        min(median_ms) AS low_ms, max(median_ms) AS high_ms
    FROM seen_launch WHERE status = 'ok' GROUP BY ALL ORDER BY started_at
"""
_SAMPLES = """
    SELECT cell, launch.campaign_id, launch.samples_ns FROM seen_launch JOIN launch USING (launch_id)
    WHERE launch.status = 'ok' AND len(launch.samples_ns) > 0 AND list_contains($cells, cell) ORDER BY launch.started_at, launch.order_index
"""


STEPS = "A level is two campaigns or more of one cell: with fewer than four campaigns no step is looked for."


def _timeline(snapshot: Snapshot, filters: Filters) -> Found:
    """Each cell's median by campaign; a step is where a new level begins, as ``ipfs-accelerate history`` finds it, and what the launches of
    the level say against those of the level before."""
    of_cell = {row["cell"]: row for row in tables.cells(snapshot)}
    points: dict[str, list[Row]] = {}
    for point in snapshot.rows(_BY_CAMPAIGN) if of_cell else []:
        own = of_cell[point["cell"]]
        if own["kind"] == "measured":
            kept = {**point, "campaign": point["campaign_id"], "step": "", "ratio": None}
            points.setdefault(point["cell"], []).append({**with_fields(own), **kept})
    again = {cell: row for cell, row in points.items() if len(row) > 1 and filters.keep(row)}
    wanted = [cell for cell, _ in zip(again, range(COMPARED_UP_TO), strict=False)]
    samples: dict[tuple[str, str], list[list[int]]] = {}
    for row in snapshot.rows(_SAMPLES, {"cells": wanted}) if wanted else []:
        samples.setdefault((row["cell"], row["campaign_id"]), []).append(row["samples_ns"])
    pairs: dict[tuple[str, str], tuple[Launches, Launches]] = {}
    for cell in wanted:
        timed = [point for point in again[cell] if (cell, point["campaign"]) in samples]
        found_here = level_pairs([point["median_ms"] for point in timed], [samples[cell, point["campaign"]] for point in timed])
        pairs |= {(cell, timed[place]["campaign"]): pair for place, pair in found_here.items()}
    found = compare_all(pairs)
    for cell in wanted:
        for point in again[cell]:
            if verdict := found.get((cell, point["campaign"])):
                point["step"], point["ratio"] = verdict.text, verdict.ratio
    rows = [point for cell in again for point in again[cell]]
    partial = len(again) > COMPARED_UP_TO
    note = (
        f"Steps are looked for in the first {COMPARED_UP_TO} of {len(again)} cells: filter to see others. " if partial else ""
    )
    return Found(rows, note + STEPS, partial)


def _checked(snapshot: Snapshot) -> list[Row]:
    return [row for row in tables.cells(snapshot) if row["kind"] == "measured" and row["median_ms"]]


def _comparisons(
    snapshot: Snapshot, pairs: list[tuple[Row, Row]]
) -> tuple[list[tuple[tuple[Row, Row], Comparison]], str, bool]:
    """The first pairs compared as one family, a sentence about those left out, and whether any were."""
    chosen = pairs[:COMPARED_UP_TO]

    def compute() -> dict[int, Comparison]:
        samples = tables.samples(snapshot, list({row["cell"] for pair in chosen for row in pair}))
        return compare_all({at: (samples[a["cell"]], samples[b["cell"]]) for at, (a, b) in enumerate(chosen)})

    name = "compared " + " ".join(f"{a['cell']}/{b['cell']}" for a, b in chosen)
    found: dict[int, Comparison] = snapshot.kept(name, compute) if chosen else {}
    left_out = len(pairs) - len(chosen)
    note = f"{len(chosen)} of {len(pairs)} pairs are compared: filter to compare others. {BETWEEN}" if left_out else ""
    return [(pair, found[at]) for at, pair in enumerate(chosen)], note, left_out > 0


BENCH = "ipfs-accelerate bench --models bert --platforms cpu,openvino,wasm"
VIEWS = (
    View(
        "verdicts",
        "Platforms and browsers compared",
        "Is the fastest really faster? Ratio of medians with its 95 % interval, against the fastest of the same work on the same machine.",
        ("model", "target", "machine", "flags", "median_ms", "verdict", "against", "ratio", "ratio_low", "ratio_high", "adjusted_p",
         "launches_ok"),
        _verdicts,
        figures.verdicts,
        ("No checked measurement is there to compare.", BENCH),
    ),
    View(
        "effects",
        "What one change does",
        "What does a precision, an engine or a browser platform change, all else equal? Left of 1 is faster with the change.",
        ("effect", "model", "target", "flags", "off_ms", "on_ms", "verdict", "ratio", "ratio_low", "ratio_high", "adjusted_p"),
        _effects,
        figures.effects,
        ("No two checked cells differ in one choice only.",
         "ipfs-accelerate bench --models bert --platforms cpu --precisions float32,int8"),
    ),
    View(
        "timeline",
        "Over time",
        "Did anything become slower? Each cell by campaign; a step is where a new level begins, by the launches of both.",
        ("model", "target", "flags", "campaign", "started_at", "median_ms", "low_ms", "high_ms", "launches_ok", "step", "ratio"),
        _timeline,
        figures.timeline,
        ("No cell was measured by two campaigns yet: run the same request again, later or after a change.",
         "ipfs-accelerate bench --quick --models bert --platforms cpu"),
    ),
)  # fmt: skip
