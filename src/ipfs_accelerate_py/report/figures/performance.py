"""Latency of each launch, cold start, scaling and memory, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import BLUE, GREY, ORANGE, PHASES, RED, log_axis, safe
from ..wording import rounded, size_of
from .rows import KIND_MARKS, Row, by_kind, canvas, error_bars, keys, name_of, plane

_LINES = (("solid", "circle"), ("dash", "square"), ("dot", "diamond"), ("dashdot", "cross"), ("longdash", "triangle-up"))
_COLOURS = (BLUE, ORANGE, "#2a9583", "#8f6cc4", RED, GREY)
_MEMORY = {
    "weights_mb": ("weights", GREY, ""),
    "host_peak_mb": ("host peak", BLUE, "/"),
    "device_peak_mb": ("device peak", ORANGE, "x"),
}


def launch_distributions(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """One mark per launch at its median, with a whisker from the 5th to the 95th percentile of its iterations."""
    ended = [row for row in rows if row["median_ms"] is not None]
    figure = canvas("milliseconds per iteration, logarithmic", [name_of(row) for row in ended], dark=dark)
    for kind, found in by_kind(ended).items():
        words, colour, symbol, _ = KIND_MARKS[kind]
        whiskers = error_bars(found, "median_ms", "p5_ms", "p95_ms")
        figure.add_scatter(
            mode="markers",
            x=[row["median_ms"] for row in found],
            y=[name_of(row) for row in found],
            customdata=keys(found),
            name=f"{words}, one mark a launch",
            marker={"color": colour, "symbol": symbol, "size": 9, "opacity": 0.8, "line": {"width": 1.5, "color": colour}},
            error_x={**whiskers, "color": colour},
            hovertemplate="%{y}<br>launch median %{x:.4g} ms<extra></extra>",
        )
    log_axis(figure, 1, [row["median_ms"] for row in ended])
    return figure


def cold_start(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Phases to the first output, stacked: medians over launches, seconds."""
    figure = canvas("seconds to the first output", [name_of(row) for row in rows], category_px=40, dark=dark)
    for phase, (words, colour, pattern) in PHASES.items():
        last = phase == "first_inference"
        figure.add_bar(
            orientation="h",
            x=[(row[f"{phase}_ms"] or 0.0) / 1e3 for row in rows],
            y=[name_of(row) for row in rows],
            customdata=keys(rows),
            name=words,
            text=[f" {rounded(row['cold_ms'] / 1e3)} s{_provenance(row)}" if last else "" for row in rows],
            textposition="outside",
            textangle=0,
            cliponaxis=False,
            marker={"color": colour, "pattern": _pattern(pattern), "opacity": [_opacity(row) for row in rows]},
            hovertemplate="%{y}<br>" + words + " %{x:.3g} s<extra></extra>",
        )
    return figure.update_layout(barmode="stack")


def scaling(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Median against batch size or length, one line a series; both axes logarithmic, so equal steps are equal factors."""
    figure = plane("batch size, or sequence length in tokens", "milliseconds per iteration", dark=dark)
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        series.setdefault((row["axis"], row["where"]), []).append(row)
    for at, ((axis, name), found) in enumerate(series.items()):
        dash, symbol = _LINES[at // len(_COLOURS) % len(_LINES)]
        colour = _COLOURS[at % len(_COLOURS)]
        simulated = found[0]["kind"] == "simulated"
        figure.add_scatter(
            mode="lines+markers",
            x=[row["x"] for row in found],
            y=[row["median_ms"] for row in found],
            customdata=keys(found),
            name=f"{safe(name)}, by {axis}",
            line={"color": colour, "dash": dash, "width": 1.75},
            marker={"symbol": f"{symbol}-open" if simulated else symbol, "size": 8, "color": colour},
            error_y={**error_bars(found, "median_ms", "low_ms", "high_ms"), "color": colour},
            hovertemplate=safe(name) + "<br>" + axis + " %{x}: %{y:.4g} ms<extra></extra>",
        )
    sizes = sorted({row["x"] for row in rows})
    figure.update_xaxes(tickvals=sizes, ticktext=[str(size) for size in sizes])
    return figure.update_layout(height=560, meta={"traces": 24})


def memory_use(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Weights and peaks of host and device, megabytes."""
    figure = canvas("megabytes", [name_of(row) for row in rows], category_px=58, dark=dark)
    for name, (words, colour, pattern) in _MEMORY.items():
        found = [row for row in rows if row[name] is not None]
        figure.add_bar(
            orientation="h",
            x=[row[name] for row in found],
            y=[name_of(row) for row in found],
            customdata=keys(found),
            name=words,
            text=[f" {size_of(row[name] * 1e6)}{_provenance(row)}" for row in found],
            textposition="outside",
            textangle=0,
            cliponaxis=False,
            marker={"color": colour, "pattern": _pattern(pattern), "opacity": [_opacity(row) for row in found]},
            hovertemplate="%{y}<br>" + words + " %{x:,.4g} MB<extra></extra>",
        )
    return figure.update_layout(barmode="group", bargroupgap=0.1)


def iterations(launches: Sequence[Row], dark: bool = False) -> go.Figure:
    """Every iteration of every launch of one cell, in order; those below 0 are the warm-up. ``launches`` have the lists of a launch."""
    figure = plane("iteration; below 0: warm-up", "milliseconds", dark=dark, log_x=False, log_y=False)
    symbols = ("circle", "diamond", "square", "triangle-up", "cross", "star")
    for at, launch in enumerate(launches):
        times = [*launch["warm_up_ns"], *launch["samples_ns"]]
        warm = len(launch["warm_up_ns"])
        if not times:
            continue
        mark = "" if launch["provenance"] == "measured" else f"{launch['provenance']} "
        symbol = symbols[at % len(symbols)]
        figure.add_scatter(
            mode="markers",
            x=[place - warm for place in range(len(times))],
            y=[value / 1e6 for value in times],
            name=f"{mark}launch {launch['launch_index']}",
            marker={
                "size": 6,
                "opacity": 0.75,
                "color": _COLOURS[at % len(_COLOURS)],
                "symbol": [f"{symbol}-open" if place < warm else symbol for place in range(len(times))],
            },
            hovertemplate="iteration %{x}: %{y:.4g} ms<extra></extra>",
        )
    figure.update_yaxes(rangemode="tozero")
    return figure.update_layout(height=340)


def _pattern(shape: str) -> dict[str, object]:
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6, "solidity": 0.25}


def _opacity(row: Row) -> float:
    return 0.4 if row["kind"] == "simulated" else 1.0


def _provenance(row: Row) -> str:
    return " simulated" if row["kind"] == "simulated" else ""
