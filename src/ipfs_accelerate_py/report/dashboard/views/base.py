"""What a view is: a question, the rows that answer it, and their figure. Each view has one file or shares one with its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from ..filters import Filters
from ..snapshot import Row, Snapshot
from ..tables import FACETS

Keys = tuple[str, ...]

# Columns by key -> (label, unit). A number of a view is named here once, for its table, its exports and its OpenAPI document.
COLUMNS: dict[str, tuple[str, str]] = {
    "model": ("Model", ""),
    "target": ("Target", ""),
    "machine": ("Machine", ""),
    "kind": ("Kind", ""),
    "flags": ("Marks", ""),
    "provenance": ("Provenance", ""),
    "precision": ("Precision", ""),
    "batch_size": ("Batch", ""),
    "sequence_length": ("Length", "tokens"),
    "median_ms": ("Median", "ms"),
    "low_ms": ("Low", "ms"),
    "high_ms": ("High", "ms"),
    "interval": ("Low and high are", ""),
    "times_fastest": ("Times the fastest", ""),
    "launches_ok": ("Launches ok", ""),
    "launches": ("Launches", ""),
    "samples": ("Iterations", ""),
    "throughput_per_s": ("Throughput", "items/s"),
    "error_class": ("Error", ""),
    "error_message": ("Reason", ""),
    "verdict": ("Verdict", ""),
    "ratio": ("Ratio of medians", ""),
    "ratio_low": ("Ratio low", ""),
    "ratio_high": ("Ratio high", ""),
    "adjusted_p": ("Adjusted p", ""),
    "against": ("Compared with", ""),
    "launch_index": ("Launch", ""),
    "status": ("Status", ""),
    "started_at": ("Started, UTC", ""),
    "p5_ms": ("5 %", "ms"),
    "p25_ms": ("25 %", "ms"),
    "p75_ms": ("75 %", "ms"),
    "p95_ms": ("95 %", "ms"),
    "n_samples": ("Iterations", ""),
    "start_ms": ("Start", "ms"),
    "fetch_ms": ("Fetch", "ms"),
    "load_ms": ("Load", "ms"),
    "compile_ms": ("Compile", "ms"),
    "first_inference_ms": ("First inference", "ms"),
    "cold_ms": ("Cold start", "ms"),
    "axis": ("Along", ""),
    "x": ("Size", ""),
    "host_peak_mb": ("Host peak", "MB"),
    "device_peak_mb": ("Device peak", "MB"),
    "weights_mb": ("Weights", "MB"),
    "bits_per_weight": ("Bits per weight", ""),
    "bits_per_cached_value": ("Bits per cached value", ""),
    "made_by": ("Made by", ""),
    "solver": ("Solver", ""),
    "perplexity": ("Perplexity", ""),
    "perplexity_ratio": ("Times the float weights'", ""),
    "perplexity_ratio_low": ("Times low", ""),
    "perplexity_ratio_high": ("Times high", ""),
    "windows": ("Windows", ""),
    "tokens": ("Scored", "tokens"),
    "is_reference": ("Float weights", ""),
    "origin": ("Weights are", ""),
    "measured_at": ("Measured, UTC", ""),
    "cosine": ("Cosine, lowest", ""),
    "relative_error": ("Relative error, highest", ""),
    "top1_agreement": ("Top-1 agreement", ""),
    "effect": ("Change", ""),
    "off_ms": ("Without", "ms"),
    "on_ms": ("With", "ms"),
    "campaign": ("Campaign", ""),
    "step": ("Against the one before", ""),
    "created_at": ("Began, UTC", ""),
    "planned": ("Planned", "launches"),
    "done": ("Ok", "launches"),
    "failed": ("Failed", "launches"),
    "unsupported": ("Unsupported", "launches"),
    "remaining": ("To do", "launches"),
    "command": ("Command", ""),
    "predicted_ms": ("Predicted", "ms"),
    "predicted_low_ms": ("Predicted low", "ms"),
    "predicted_high_ms": ("Predicted high", "ms"),
    "regime": ("Known by", ""),
    "intensity": ("Intensity", "FLOP/byte"),
    "gflops": ("Reached", "GFLOP/s"),
    "roof_gflops": ("Roof", "GFLOP/s"),
    "share_of_roof": ("Share of the roof", ""),
    "peak_gflops": ("Arithmetic at most", "GFLOP/s"),
    "bandwidth_gb_s": ("Memory at most", "GB/s"),
    "size": ("Size", ""),
}


@dataclass(frozen=True)
class Found:
    """Rows, and a sentence about what was left out. ``partial``: other filters would bring other rows, so ask again with them; ``values``
    then has what each facet can be filtered by, with the number of rows that have it, where the rows alone do not show all."""

    rows: list[Row]
    note: str = ""
    partial: bool = False
    values: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """``find`` gives the rows of a snapshot, each with a ``cell`` where it belongs to one; ``empty`` is the sentence and the command
    that fills a view without rows."""

    name: str
    title: str
    question: str
    columns: Keys
    find: Callable[[Snapshot, Filters], Found]
    figure: Callable[[Sequence[Row]], go.Figure]
    empty: tuple[str, str]
    sort: tuple[str, bool] | None = None  # column, descending

    def answer(self, snapshot: Snapshot, filters: Filters | None = None, *, draw: bool = True) -> dict[str, Any]:
        """Rows that pass the filters, with a ``key`` each, and the figure of them unless ``draw`` is off: plain values, for JSON."""
        chosen = filters or Filters()
        found = self.find(snapshot, chosen)
        kept = chosen.keep(found.rows)
        columns = (
            self.columns if "provenance" in self.columns else (*self.columns, "provenance")
        )  # a number never travels without it
        names = ["cell", "where", *columns, *(name for name in FACETS if name not in columns)]
        rows = [{"key": key, **{name: row[name] for name in names if name in row}} for key, row in enumerate(kept)]
        figure = self.figure(rows).to_plotly_json() if rows and draw else None
        sentence, command = self.empty
        return {
            "name": self.name,
            "title": self.title,
            "question": self.question,
            "columns": [{"key": key, "label": COLUMNS[key][0], "unit": COLUMNS[key][1]} for key in columns],
            "sort": self.sort,
            "rows": rows,
            "figure": {"data": figure["data"], "layout": figure["layout"]} if figure else None,
            "note": found.note,
            "partial": found.partial,
            "values": found.values,
            "empty": {"sentence": sentence, "command": command},
        }


def with_fields(row: Row, names: Sequence[str] = (), **more: Any) -> Row:
    """What identifies a row's cell, the fields named, and others."""
    kept = ("cell", "where", "model", "target", "task", "flags", "provenance", "error_class", "error_message", *FACETS, *names)
    return {**{name: row[name] for name in kept if name in row}, **more}
