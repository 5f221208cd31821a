"""Predicted against measured, and rooflines, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ..style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, safe
from .rows import Row, error_bars, keys, one_line, plane

# how a prediction is known -> colour, symbol
REGIMES = {
    "interpolated": (GREEN, "circle"),
    "new model": (BLUE, "square"),
    "new device": (ORANGE, "diamond"),
    "datasheet": (RED, "x"),
    "measured": (GREY, "star"),
}
ROOFS_UP_TO = 8
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def predicted_against_measured(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Predicted over measured median, both logarithmic, with the prediction's interval; equal on the line."""
    figure = plane("measured, milliseconds", "predicted, milliseconds", dark=dark)
    for regime, (colour, symbol) in REGIMES.items():
        found = [row for row in rows if row["regime"] == regime]
        if not found:
            continue
        figure.add_scatter(
            mode="markers",
            x=[row["median_ms"] for row in found],
            y=[row["predicted_ms"] for row in found],
            customdata=keys(found),
            name=f"predicted: {regime}",
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_y={**error_bars(found, "predicted_ms", "predicted_low_ms", "predicted_high_ms"), "color": colour},
            hovertext=[
                f"{one_line(row)} · {safe(row['target'])}<br>measured {row['median_ms']:.4g} ms, predicted {row['predicted_ms']:.4g} ms"
                for row in found
            ],
            hoverinfo="text",
        )
    both = [row[name] for row in rows for name in ("median_ms", "predicted_ms")]
    ends = [min(both), max(both)]
    figure.add_scatter(mode="lines", x=ends, y=ends, name="equal", line={"color": GREY, "dash": "dot"}, hoverinfo="skip")
    return figure


def roofline(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """FLOP/s reached over FLOPs a byte, both logarithmic, below each device's roof: memory's slope, then arithmetic's ceiling."""
    figure = plane("FLOPs per byte", "GFLOP/s", dark=dark)
    figure.add_scatter(
        mode="markers",
        x=[row["intensity"] for row in rows],
        y=[row["gflops"] for row in rows],
        customdata=keys(rows),
        name="measured cell",
        marker={"color": BLUE, "symbol": "circle", "size": 10, "opacity": 0.8},
        hovertext=[
            f"{one_line(row)} · {safe(row['target'])}<br>{row['gflops']:.4g} GFLOP/s, {row['share_of_roof']:.0%} of the roof"
            for row in rows
        ],
        hoverinfo="text",
    )
    roofs = dict.fromkeys((row["machine"], row["target"], row["peak_gflops"], row["bandwidth_gb_s"]) for row in rows)
    lowest = min(row["intensity"] for row in rows) / 2
    for at, (_, target, peak, bandwidth) in enumerate(list(roofs)[:ROOFS_UP_TO]):
        knee = peak / bandwidth
        places = np.unique([min(lowest, knee / 2), knee, max(max(row["intensity"] for row in rows) * 2, knee * 2)])
        figure.add_scatter(
            mode="lines",
            x=places.tolist(),
            y=np.minimum(peak, bandwidth * places).tolist(),
            name=f"roof of {safe(target)}, measured: {peak:.3g} GFLOP/s, {bandwidth:.3g} GB/s",
            line={"color": (GREY, PURPLE, ORANGE, GREEN, RED)[at % 5], "dash": _DASHES[at % 5], "width": 1.5},
            hoverinfo="skip",
        )
    return figure.update_layout(height=560)


def pareto(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Latency against memory of the candidates of a recommendation, both logarithmic; the line joins those that nothing beats in both."""
    figure = plane("milliseconds", "memory, GB", dark=dark)
    for provenance, (words, symbol, colour) in {
        "measured": ("measured", "circle", BLUE),
        "predicted": ("predicted", "triangle-up-open", PURPLE),
    }.items():
        found = [row for row in rows if row["provenance"] == provenance]
        if not found:
            continue
        figure.add_scatter(
            mode="markers",
            x=[row["latency_ms"] for row in found],
            y=[row["memory_gb"] for row in found],
            customdata=keys(found),
            name=words,
            marker={"color": colour, "symbol": symbol, "size": [13 if row["pareto"] else 8 for row in found]},
            error_x={**error_bars(found, "latency_ms", "latency_low_ms", "latency_high_ms"), "color": colour},
            hovertext=[
                f"{safe(row['target'])}, {safe(row['precision'])}<br>{row['latency_ms']:.4g} ms, {words}" for row in found
            ],
            hoverinfo="text",
        )
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["latency_ms"], row["memory_gb"])):
        if row["feasible"] and (not front or row["memory_gb"] < front[-1]["memory_gb"]):
            front.append(row)
    figure.add_scatter(
        mode="lines",
        x=[row["latency_ms"] for row in front],
        y=[row["memory_gb"] for row in front],
        name="nothing is better in both",
        line={"color": GREY, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )
    return figure
