"""Predictions beside measurements, and rooflines: of stores that hold predictions and device probes; others say what makes them.

Older stores have neither table. A prediction is drawn as one, with its band, and never stands where a measurement is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ....errors import UserError
from ....graph import count, describe
from ... import figures
from ...wording import count as count_of
from ...wording import target_labels
from .. import tables
from ..filters import Filters
from ..snapshot import Row, Snapshot
from .base import Found, View, with_fields

_WORK = ("model_class", "size", "batch_size", "sequence_length", "new_tokens", "precision", "mode")
_PLACE = ("platform", "engine", "device", "browser")
# The latest prediction of each question.
_PREDICTIONS = """
    SELECT * FROM prediction
    QUALIFY row_number() OVER (
        PARTITION BY model, platform, engine, device, browser, machine_hash, batch_size, sequence_length, new_tokens, precision, mode
        ORDER BY predicted_at DESC
    ) = 1
    ORDER BY model, platform, engine, browser
"""
# The best rate of the latest probe of each device, by precision.
_CEILINGS = """
    WITH latest AS (
        SELECT machine_hash, target_hash, arg_max(session_id, measured_at) AS session_id
        FROM probe WHERE provenance = 'measured' GROUP BY ALL
    )
    SELECT machine_hash, target_hash, kind, precision, max(value) AS value
    FROM latest JOIN probe USING (machine_hash, target_hash, session_id) WHERE kind IN ('matmul', 'bandwidth') GROUP BY ALL
"""


def predictions(snapshot: Snapshot) -> list[Row]:
    """The latest prediction of each question, with the measured cell that answers the same question where there is one."""
    return snapshot.kept("predictions", lambda: _predictions(snapshot) if snapshot.has("prediction") else [])


def cells_predicted(snapshot: Snapshot) -> list[Row]:
    """Predictions of what was not measured, as rows of the matrix: of kind ``predicted``, with the prediction's own interval."""
    return [row for row in predictions(snapshot) if row["measured_cell"] is None]


def _predictions(snapshot: Snapshot) -> list[Row]:
    cells = tables.cells(snapshot)
    named = tables.machines(snapshot)
    several = any("\n" in row["where"] for row in cells)
    measured: dict[tuple[Any, ...], Row] = {}
    labels: dict[tuple[Any, ...], str] = {}
    for cell in cells:
        work = tuple(cell[name] for name in _WORK)
        labels.setdefault(work, cell["model"])
        if cell["kind"] == "measured":
            measured.setdefault((*work, *(cell[name] for name in _PLACE), cell["machine_hash"]), cell)
    rows = []
    for found in snapshot.rows(_PREDICTIONS):
        model = _model(found.pop("model"))
        row = {**found, **model, "kind": "predicted", "flags": "", "cell": None, "error_class": None, "error_message": None}
        work = tuple(row[name] for name in _WORK)
        place = tuple(row[name] for name in _PLACE)
        row["machine"] = _machine(row["machine_hash"] or "", named)
        row["target"] = target_labels([{**row, "target_hash": "one"}])["one"]
        own = f"{row['model_class']} {row['size']} · {row['precision']} · batch {row['batch_size']}"
        row["model"] = labels.get(work, own.replace("  ", " "))
        row["where"] = row["model"] + (f"\n{row['machine']}" if several or row["machine_hash"] not in named else "")
        row["median_ms"], row["low_ms"], row["high_ms"] = row["latency_ms"], row["latency_low_ms"], row["latency_high_ms"]
        row["interval"] = f"{row['level']:.0%} interval of the prediction".replace("%", " %")
        row["launches_ok"] = row["launches"] = row["samples"] = row["times_fastest"] = None
        row["measured_cell"] = measured.get((*work, *place, row["machine_hash"]))
        rows.append(row)
    return rows


def _machine(key: str, named: Mapping[str, str]) -> str:
    """For people. A prediction for a device of the datasheets has its name where others have a machine's hash."""
    return named.get(key) or ("not measured here" if re.fullmatch("[0-9a-f]*", key) else key)


def _model(name: str) -> dict[str, str]:
    """Class and size of a model by the name under which it was predicted; a model of no class keeps its name."""
    reference, _, size = name.partition(" ")
    try:
        known = describe(reference, size or None)
    except UserError:
        return {"model_class": name, "size": ""}
    return {"model_class": known.model_class or name, "size": known.size or ""}


def _against_measured(snapshot: Snapshot, _: Filters) -> Found:
    rows = []
    for row in predictions(snapshot):
        cell = row["measured_cell"]
        if cell is None:
            continue
        rows.append(
            with_fields(
                cell,
                ("median_ms", "low_ms", "high_ms", "launches_ok"),
                predicted_ms=row["latency_ms"],
                predicted_low_ms=row["latency_low_ms"],
                predicted_high_ms=row["latency_high_ms"],
                regime=row["regime"],
                ratio=row["latency_ms"] / cell["median_ms"],
                verdict="inside" if row["latency_low_ms"] <= cell["median_ms"] <= row["latency_high_ms"] else "outside",
            )
        )
    alone = len(predictions(snapshot)) - len(rows)
    note = f"In the matrix, not here: {count_of(alone, 'prediction')} of what was not measured." if alone else ""
    return Found(rows, note)


def _roofline(snapshot: Snapshot, _: Filters) -> Found:
    """Each measured cell on a probed device: what it reached, against what its intensity allows. FLOPs and bytes are counted, with
    every operator on its own, so an engine that fuses moves fewer bytes than the intensity says."""
    if not snapshot.has("probe"):
        return Found([])
    ceilings = {
        (row["machine_hash"], row["target_hash"], row["kind"], row["precision"]): row["value"]
        for row in snapshot.rows(_CEILINGS)
    }
    bandwidths = {key[:2]: value for key, value in ceilings.items() if key[2] == "bandwidth"}
    rows = []
    for cell in tables.cells(snapshot):
        device = cell["machine_hash"], cell["target_hash"]
        peak = ceilings.get((*device, "matmul", cell["precision"])) or ceilings.get((*device, "matmul", "float32"))
        if cell["kind"] != "measured" or not cell["median_ms"] or device not in bandwidths or not peak:
            continue
        try:
            counts = count(describe(cell["model_class"], cell["size"]), **{name: cell[name] for name in _WORK[2:]})
        except UserError:
            continue  # a folder's or a hub's model, whose shape the store does not hold
        intensity = counts.flops / counts.bytes_moved
        reached, roof = counts.flops / (cell["median_ms"] / 1e3) / 1e9, min(peak, bandwidths[device] * intensity) / 1e9
        more = {"intensity": intensity, "gflops": reached, "roof_gflops": roof, "share_of_roof": reached / roof}
        limits = {"peak_gflops": peak / 1e9, "bandwidth_gb_s": bandwidths[device] / 1e9}
        rows.append(with_fields(cell, ("median_ms",), **more, **limits))
    return Found(
        rows, "Ceilings are measured by a probe of the device; bytes are counted with every operator on its own, unfused."
    )


VIEWS = (
    View(
        "roofline",
        "Roofline",
        "What limits each cell: arithmetic or memory? The lines are what the device reached in a probe.",
        ("model", "target", "machine", "flags", "median_ms", "intensity", "gflops", "roof_gflops", "share_of_roof", "peak_gflops",
         "bandwidth_gb_s"),
        _roofline,
        figures.roofline,
        ("No device of this store's cells was probed.", "ipfs-accelerate calibrate"),
    ),
    View(
        "predictions",
        "Predicted against measured",
        "How far off are predictions where a measurement can tell? On the line they are equal; the bar is the prediction's interval.",
        ("model", "target", "machine", "flags", "regime", "median_ms", "predicted_ms", "predicted_low_ms", "predicted_high_ms", "ratio",
         "verdict", "launches_ok"),
        _against_measured,
        figures.predicted_against_measured,
        ("This store holds no prediction of what it measured since. Save one before you measure.",
         "ipfs-accelerate predict bert --platform cpu --batch-size 8 --save results/ipfs-accelerate.duckdb"),
    ),
)  # fmt: skip
