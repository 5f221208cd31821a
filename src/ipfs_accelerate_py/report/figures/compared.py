"""Ratios with their verdicts, and medians over time with their steps, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import BLUE, GREEN, GREY, ORANGE, RED, log_axis, safe
from .rows import Row, canvas, error_bars, keys, name_of, one_line, plane

# beginning of a verdict -> words, colour, symbol
VERDICT_MARKS = {
    "fastest": ("fastest", GREEN, "star"),
    "faster": ("faster", GREEN, "triangle-left"),
    "slower": ("slower", ORANGE, "triangle-right"),
    "equal": ("equal, within 3 %", BLUE, "square"),
    "not decided": ("not decided", GREY, "circle-open"),
}


def verdicts(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Ratio to the fastest of the same work, with its interval; the mark's shape is the verdict."""
    return _ratios(rows, [name_of(row) for row in rows], "times as long as the fastest, logarithmic", dark)


def effects(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Ratio with to without one change, with its interval."""
    names = [f"<b>{safe(row['effect'])}</b><br>{one_line(row)} · {safe(row['target'])}" for row in rows]
    return _ratios(rows, names, "time with the change / without, logarithmic", dark)


def timeline(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Median by campaign, one line a cell, with the range of launch medians; a step is a triangle."""
    figure = plane("campaign began, UTC", "milliseconds per iteration", dark=dark, log_x=False)
    figure.update_xaxes(type="date")
    colours = (BLUE, ORANGE, GREEN, "#8f6cc4", RED, GREY)
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(row["cell"], []).append(row)
    for at, found in enumerate(series.values()):
        colour = colours[at % len(colours)]
        name = f"{one_line(found[0])} · {safe(found[0]['target'])}"
        symbols = [
            "triangle-down" if row["step"] == "faster" else "triangle-up" if row["step"] == "slower" else "circle"
            for row in found
        ]
        figure.add_scatter(
            mode="lines+markers",
            x=[row["started_at"] for row in found],
            y=[row["median_ms"] for row in found],
            customdata=keys(found),
            name=name,
            line={"color": colour, "width": 1.5, "dash": ("solid", "dash", "dot")[at // len(colours) % 3]},
            marker={"color": colour, "symbol": symbols, "size": [14 if symbol != "circle" else 8 for symbol in symbols]},
            error_y={**error_bars(found, "median_ms", "low_ms", "high_ms"), "color": colour},
            hovertext=[f"{name}<br>{row['median_ms']:.4g} ms; {row['step'] or 'no step'}" for row in found],
            hoverinfo="text",
        )
    return figure.update_layout(height=560, meta={"traces": 24})


def _ratios(rows: Sequence[Row], names: Sequence[str], title: str, dark: bool) -> go.Figure:
    drawn = [(row, name) for row, name in zip(rows, names, strict=True) if row["ratio"] is not None]
    figure = canvas(title, [name for _, name in drawn], dark=dark)
    for start, (words, colour, symbol) in VERDICT_MARKS.items():
        found = [(row, name) for row, name in drawn if _starts(row["verdict"]) == start]
        if not found:
            continue
        members = [row for row, _ in found]
        figure.add_scatter(
            mode="markers+text",
            x=[row["ratio"] for row in members],
            y=[name for _, name in found],
            customdata=keys(members),
            name=words,
            text=[f"{row['ratio']:.3g}×" for row in members],
            textposition="top center",
            textfont={"size": 11},
            cliponaxis=False,
            marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1.5, "color": colour}},
            error_x={**error_bars(members, "ratio", "ratio_low", "ratio_high"), "color": colour},
            hovertext=[f"{name}: {safe(row['verdict'])}" for row, name in found],
            hoverinfo="text",
        )
    log_axis(figure, 1, [row["ratio"] for row, _ in drawn])
    figure.add_vline(x=1, line={"color": GREY, "width": 1, "dash": "dot"})
    return figure


def _starts(verdict: str) -> str:
    return next((start for start in VERDICT_MARKS if verdict == start or verdict.startswith(f"{start},")), "not decided")
