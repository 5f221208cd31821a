"""Figures of cells with all their samples: those of the report. One panel per model.

Every mark and bar carries its cell's id as ``customdata``, by which the report filters them and opens the details.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..cells import KINDS, Cell, fastest_medians
from ..style import BLUE, GAP_PX, GREEN, GREY, MARKER, ORANGE, PHASES, PURPLE, RED, layout, log_axis, panels_px, safe
from ..wording import bounds, milliseconds, rounded, size_of

Points = Sequence[tuple[Cell, float]]
SIMULATED_OPACITY = 0.35  # a pale mark or bar, beside the word

_ABOVE: dict[str, Any] = {"mode": "markers+text", "textposition": "top center", "textfont": {"size": 11}, "cliponaxis": False}


def heat_map(cells: Sequence[Cell], dark: bool = False) -> go.Figure:
    """Model x target. Colour: how many times the model's fastest checked median; text: median and interval, or what is there."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    fastest = fastest_medians(cells)
    ratios: list[list[float | None]] = [[None] * len(targets) for _ in models]
    figure = make_subplots(rows=1, cols=1)
    for cell in cells:
        row, column = models.index(cell.model), targets.index(cell.target)
        if cell.kind == "measured" and cell.median:
            ratios[row][column] = math.log10(cell.median / fastest[cell.model])
        figure.add_annotation(x=column, y=row, text=_cell_text(cell), showarrow=False, font={"size": 11})
    steps = (1, 2, 5, 10, 30)
    figure.add_heatmap(
        z=ratios,
        x=list(range(len(targets))),
        y=list(range(len(models))),
        colorscale=[[0, "#2f5f9e"], [1, "#20242b"]] if dark else [[0, "#8fbdf0"], [1, "#f1f4f8"]],
        zmin=0,
        zmax=math.log10(steps[-1]),
        xgap=3,
        ygap=3,
        hoverinfo="skip",
        colorbar={"title": "× fastest", "tickvals": [math.log10(step) for step in steps], "ticktext": steps},
    )
    layout(figure, [2] * len(models), "", dark)
    figure.update_layout(title="Median time per iteration by model and target", margin_t=110)
    targets_text = [safe(name).replace(" · ", "<br>").replace("-", "-<br>") for name in targets]
    figure.update_xaxes(tickvals=list(range(len(targets))), ticktext=targets_text, showgrid=False, side="top")
    figure.update_yaxes(tickvals=list(range(len(models))), ticktext=[safe(name) for name in models])
    return figure


def latency(cells: Sequence[Cell], dark: bool = False) -> go.Figure:
    """One mark per launch at its median, and the median over launches with its 95 % interval; logarithmic axis, milliseconds."""
    figure, panels = _panels([cell for cell in cells if cell.ok])
    for panel, group in panels:
        everything = [value for cell in group for value in cell.medians]
        for kind, (words, colour, symbol) in MARKER.items():
            points = [(cell, value) for cell in group if cell.kind == kind for value in cell.medians]
            marker = {"color": colour, "symbol": symbol, "size": 8, "opacity": 0.75, "line": {"width": 1.5, "color": colour}}
            hover = "%{y}: launch median %{x:.4g} ms<extra></extra>"
            _scatter(figure, panel, points, words, marker=marker, hovertemplate=hover)
        middle = [(cell, cell.median) for cell in group if cell.median is not None]
        spans = [(cell.interval.low, cell.interval.high) if cell.interval else (value, value) for cell, value in middle]
        text = [f"{milliseconds(value, cell.interval)}{_provenance(cell)}" for cell, value in middle]
        _scatter(
            figure,
            panel,
            middle,
            "median, 95 % interval",
            text=text,
            **_ABOVE,
            marker={"symbol": "line-ns-open", "size": 14, "color": GREY, "line": {"width": 2}},
            error_x={
                "symmetric": False,
                "array": [high - value for (_, value), (_, high) in zip(middle, spans, strict=True)],
                "arrayminus": [value - low for (_, value), (low, _) in zip(middle, spans, strict=True)],
                "color": GREY,
                "thickness": 2,
            },
            hovertext=[
                f"{words}, 95 % interval {bounds(cell.interval)} ms" for words, (cell, _) in zip(text, middle, strict=True)
            ],
            hoverinfo="text",
        )
        log_axis(figure, panel, everything)
    return layout(figure, [1.15 * rows for rows in _rows(panels)], "milliseconds, logarithmic", dark)


def phases(cells: Sequence[Cell], dark: bool = False) -> go.Figure:
    """Cold start by phase, stacked, and below it one warm iteration: medians over launches, seconds."""
    figure, panels = _panels([cell for cell in cells if cell.ok])
    for panel, group in panels:
        for phase, (words, colour, pattern) in PHASES.items():
            points = _points(group, f"phases_ns.{phase}", 1e-9)
            hover = "%{y}: " + words + " %{x:.3g} s<extra></extra>"
            last = phase == "first_inference"  # the end of the stack says how long it is
            text = [f" {rounded(cold_seconds(cell))} s{_provenance(cell)}" if last else "" for cell, _ in points]
            _bar(figure, panel, points, words, colour, pattern, hovertemplate=hover, text=text, offsetgroup="cold")
        warm = [(cell, (cell.median or 0.0) / 1e3) for cell in group]
        text = [f" {milliseconds(1e3 * value, cell.interval)}{_provenance(cell)}" for cell, value in warm]
        hover = "%{y}: warm iteration %{x:.3g} s<extra></extra>"
        _bar(figure, panel, warm, "one warm iteration", RED, "|", hovertemplate=hover, text=text, offsetgroup="warm")
        figure.update_xaxes(range=[0, 1.25 * max(cold_seconds(cell) for cell in group)], row=panel, col=1)
    figure.update_layout(barmode="stack")
    return layout(figure, [1.15 * rows for rows in _rows(panels)], "seconds to the first output", dark)


def memory(cells: Sequence[Cell], dark: bool = False) -> go.Figure:
    """Weights, peak of the host and peak of the device: medians over launches, megabytes. A browser's host peak is the sum of its
    processes' own peaks, an upper bound."""
    figure, panels = _panels([cell for cell in cells if cell.ok])
    series = {
        "weights_bytes": ("weights", GREY, ""),
        "host_peak_bytes": ("host peak", BLUE, "/"),
        "device_peak_bytes": ("device peak", ORANGE, "x"),
    }
    for panel, group in panels:
        largest = 1.0
        for name, (words, colour, pattern) in series.items():
            points = _points(group, name, 1e-6)
            largest = max([largest, *(value for _, value in points)])
            text = [f" {size_of(value * 1e6)}{_provenance(cell)}" for cell, value in points]
            hover = "%{y}: " + words + " %{x:,.4g} MB<extra></extra>"
            _bar(figure, panel, points, words, colour, pattern, hovertemplate=hover, text=text)
        figure.update_xaxes(range=[0, 1.25 * largest], row=panel, col=1)
    figure.update_layout(barmode="group", bargroupgap=0.1)
    return layout(figure, [1.3 * rows for rows in _rows(panels)], "megabytes", dark)


def generation(cells: Sequence[Cell], dark: bool = False) -> go.Figure:
    """Decoders: time to the first token and time of each later token, one mark per launch; logarithmic axis, milliseconds."""
    figure, panels = _panels([cell for cell in cells if cell.median_of("first_token_ns") is not None])
    series = {
        "first_token_ns": ("to the first token", PURPLE, "diamond"),
        "per_token_ns": ("each later token", GREEN, "circle-open"),
    }
    for panel, group in panels:
        everything = [value for cell in group for name in series for value in cell.per_launch(name, 1e-6)]
        for name, (words, colour, symbol) in series.items():
            points = [(cell, value) for cell in group for value in cell.per_launch(name, 1e-6)]
            marker = {"color": colour, "symbol": symbol, "size": 9, "opacity": 0.8, "line": {"width": 1.5, "color": colour}}
            hover = "%{y}: %{x:.4g} ms " + words + "<extra></extra>"
            _scatter(figure, panel, points, words, marker=marker, hovertemplate=hover)
            middle = _points(group, name, 1e-6)
            text = [f"{milliseconds(value)}{_provenance(cell)}" for cell, value in middle]
            clear = {"size": 12, "opacity": 0}  # keeps the text clear of the marks below it
            _scatter(figure, panel, middle, words, text=text, **_ABOVE, marker=clear, hoverinfo="skip", showlegend=False)
        log_axis(figure, panel, everything)
    return layout(figure, [1.25 * rows for rows in _rows(panels)], "milliseconds, logarithmic", dark)


def cold_seconds(cell: Cell) -> float:
    """From nothing to the first output: sum of the phases' medians, seconds."""
    return sum(cell.median_of(f"phases_ns.{phase}", 1e-9) or 0.0 for phase in PHASES)


def _cell_text(cell: Cell) -> str:
    if cell.median is None:
        return f"{KINDS[cell.kind][0]} {cell.kind}{_provenance(cell)}"
    marks = "".join(f"<br>{safe(mark)}" for mark, _ in cell.flags)
    return f"<b>{milliseconds(cell.median, cell.interval)}</b><br>{bounds(cell.interval)}{marks}"


def _provenance(cell: Cell) -> str:
    return " simulated" if cell.simulated else ""


def _row(cell: Cell) -> str:
    """Name of a cell's row, with its marks below."""
    marks = " · ".join(mark for mark, _ in cell.flags)
    return safe(cell.target) + (f'<br><span style="font-size:10px">{safe(marks)}</span>' if marks else "")


def _panels(cells: Sequence[Cell]) -> tuple[go.Figure, list[tuple[int, list[Cell]]]]:
    """An empty figure with one row of subplots per model, and (row number, cells) of each; no cells give one empty panel."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.model, []).append(cell)
    figure = make_subplots(
        rows=max(len(groups), 1),
        cols=1,
        vertical_spacing=GAP_PX / panels_px([len(group) for group in groups.values()]),
        subplot_titles=[safe(model) for model in groups] if len(groups) > 1 else None,
        row_heights=[len(group) + 1 for group in groups.values()] or None,
    )
    for panel, group in enumerate(groups.values(), start=1):
        figure.update_yaxes(categoryorder="array", categoryarray=[_row(cell) for cell in group], row=panel, col=1)
    return figure, list(enumerate(groups.values(), start=1))


def _rows(panels: Sequence[tuple[int, list[Cell]]]) -> list[float]:
    return [len(group) for _, group in panels]


def _points(cells: Sequence[Cell], name: str, scale: float) -> list[tuple[Cell, float]]:
    return [(cell, value) for cell in cells if (value := cell.median_of(name, scale)) is not None]


def _scatter(figure: go.Figure, panel: int, points: Points, name: str, **how: Any) -> None:
    _add(figure.add_scatter, figure, panel, points, name, {"mode": "markers", **how})


def _bar(figure: go.Figure, panel: int, points: Points, name: str, colour: str, pattern: str, **how: Any) -> None:
    marker = {
        "color": colour,
        "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6, "solidity": 0.25},
    }
    texts = {"textposition": "outside", "textangle": 0, "cliponaxis": False, "textfont": {"size": 11}}
    _add(figure.add_bar, figure, panel, points, name, {"orientation": "h", "marker": marker, **texts, **how})


def _add(add: Callable[..., Any], figure: go.Figure, panel: int, points: Points, name: str, how: dict[str, Any]) -> None:
    """Add a series; one name stands in the legend once, however many panels it has."""
    if not points:
        return
    how.setdefault("showlegend", all(trace.name != name for trace in figure.data))
    how["marker"] = {"opacity": 1, **how["marker"]}
    how["marker"]["opacity"] = [how["marker"]["opacity"] * (SIMULATED_OPACITY if cell.simulated else 1) for cell, _ in points]
    add(
        x=[value for _, value in points],
        y=[_row(cell) for cell, _ in points],
        customdata=[cell.id for cell, _ in points],
        name=name,
        legendgroup=name,
        row=panel,
        col=1,
        **how,
    )
