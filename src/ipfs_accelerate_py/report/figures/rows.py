"""What figures of a view's rows share. A mark's ``customdata`` is its row's ``key``: by it the page filters and opens details.

``layout.meta`` tells the page how to draw a part of a large figure: ``category_px`` for each name on the y axis, ``page`` names at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...measure.statistics import Interval
from ..style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, layout, safe
from ..wording import milliseconds

Row = Mapping[str, Any]

# kind -> words, colour, symbol of a mark, pattern of a bar: told apart without the colour.
KIND_MARKS = {
    "measured": ("measured", BLUE, "circle", ""),
    "simulated": ("simulated", ORANGE, "diamond-open", "/"),
    "predicted": ("predicted", PURPLE, "triangle-up-open", "."),
    "inaccurate": ("output check not passed", RED, "x-thin-open", "x"),
    "unchecked": ("output not checked", GREEN, "square-open", "-"),
    "failed": ("failed", RED, "x-open", "\\"),
    "unsupported": ("cannot run here", GREY, "line-ew-open", ""),
}
PAGE = 24  # names on the y axis at once: what a screen or two can show


def canvas(x_title: str, names: Sequence[str], *, category_px: int = 46, dark: bool = False) -> go.Figure:
    """An empty figure with these names down its y axis."""
    figure = make_subplots(rows=1, cols=1)
    layout(figure, [1], x_title, dark)
    shown = list(dict.fromkeys(names))
    figure.update_yaxes(categoryorder="array", categoryarray=shown, type="category")
    figure.update_xaxes(side="top")
    figure.update_layout(showlegend=True, margin={"t": 92})
    meta = {"category_px": category_px, "page": PAGE}
    return figure.update_layout(height=150 + category_px * min(len(shown), PAGE), meta=meta)


def plane(x_title: str, y_title: str, *, dark: bool = False, log_x: bool = True, log_y: bool = True) -> go.Figure:
    """An empty figure with a number on each axis."""
    figure = make_subplots(rows=1, cols=1)
    layout(figure, [1], x_title, dark)
    figure.update_yaxes(autorange=True, showgrid=True, gridcolor="#2e323a" if dark else "#e4e5e8")
    figure.update_yaxes(title={"text": y_title, "font": {"size": 12}, "standoff": 8}, type="log" if log_y else "linear")
    figure.update_xaxes(type="log" if log_x else "linear")
    return figure.update_layout(height=480, meta={}, showlegend=True)


def name_of(row: Row) -> str:
    """A cell's name on an axis: its work above its target, with the marks that belong beside its numbers."""
    marks = f' <span style="font-size:10px">({safe(row["flags"])})</span>' if row.get("flags") else ""
    work, *machine = row["where"].split("\n")
    return f"{safe(work)}<br>{safe(' · '.join([row['target'], *machine]))}{marks}"


def one_line(row: Row) -> str:
    """The work, and the machine where there are several."""
    return safe(row["where"].replace("\n", " · "))


def keys(rows: Sequence[Row]) -> list[Any]:
    return [row.get("key", index) for index, row in enumerate(rows)]


def by_kind(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each kind, in the order of KIND_MARKS; kinds without rows are left out."""
    return {kind: found for kind in KIND_MARKS if (found := [row for row in rows if row.get("kind", "measured") == kind])}


def interval_of(row: Row, name: str = "") -> Interval | None:
    low, high = row.get(f"{name}low_ms"), row.get(f"{name}high_ms")
    return None if low is None or high is None else Interval(low, high)


def duration(row: Row) -> str:
    """The median for people, as precise as its interval."""
    return milliseconds(row["median_ms"], interval_of(row))


def error_bars(rows: Sequence[Row], value: str, low: str, high: str) -> dict[str, Any]:
    """Asymmetric, from the bounds that rows have; none where a row has none."""
    reach = [(row[high] - row[value], row[value] - row[low]) if row[low] is not None else (0.0, 0.0) for row in rows]
    return {
        "symmetric": False,
        "array": [max(above, 0.0) for above, _ in reach],
        "arrayminus": [max(below, 0.0) for _, below in reach],
        "thickness": 1.5,
        "width": 3,
    }
