"""Model x platform as tiles: colour by speed, pattern and words by what kind of knowledge a tile is."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ...spec import PLATFORMS
from ..style import safe
from ..wording import bounds
from .rows import KIND_MARKS, Row, by_kind, canvas, duration, interval_of, keys

SPEEDS = ((1.0, 0.70), (1.5, 0.50), (3.0, 0.34), (10.0, 0.20))  # up to so many times the fastest -> how deep the tile's blue
SLOWEST = 0.10
_TINTS = {
    "simulated": "rgba(200,116,26,0.16)",
    "predicted": "rgba(143,108,196,0.18)",
    "inaccurate": "rgba(209,73,91,0.14)",
    "unchecked": "rgba(42,149,131,0.16)",
    "failed": "rgba(209,73,91,0.10)",
    "unsupported": "rgba(0,0,0,0)",
}


def platform_matrix(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """One tile per cell, of rows of the view ``matrix``. A measured tile is the deeper the nearer it is to its row's fastest."""
    platforms = {
        row["target"]: PLATFORMS.index(row["platform"]) if row["platform"] in PLATFORMS else len(PLATFORMS) for row in rows
    }
    columns = sorted(platforms, key=lambda target: (platforms[target], target))
    figure = canvas("", [_work(row) for row in rows], category_px=74, dark=dark)
    for kind, found in by_kind(rows).items():
        words, colour, _, pattern = KIND_MARKS[kind]
        fill = [_blue(row) for row in found] if kind == "measured" else _TINTS[kind]
        figure.add_bar(
            orientation="h",
            base=[columns.index(row["target"]) for row in found],
            x=[0.95] * len(found),
            y=[_work(row) for row in found],
            width=[0.92] * len(found),
            customdata=keys(found),
            name=words,
            text=[_words(row) for row in found],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            # What a tile says stands in it already: a large store's figure would hold each text twice.
            hovertext=["<br>".join(filter(None, [safe(row["target"]), safe(row.get("error_message") or "")])) for row in found],
            hovertemplate="%{y}<br>%{text}<br>on %{hovertext}<extra></extra>",
            constraintext="none",
            textfont={"size": 12},
            marker={
                "color": fill,
                "line": {"color": colour, "width": 0 if kind == "measured" else 1.5},
                "pattern": {
                    "shape": pattern,
                    "fillmode": "overlay",
                    "fgcolor": colour,
                    "fgopacity": 0.28,
                    "size": 9,
                    "solidity": 0.16,
                },
            },
        )
    figure.update_layout(barmode="overlay", uniformtext={"mode": "show", "minsize": 9}, margin={"t": 100})
    titles = [safe(name).replace(" · ", "<br>").replace("-", "-<br>", 1) for name in columns]
    figure.update_xaxes(
        side="top",
        showgrid=False,
        range=[0, max(len(columns), 1)],
        tickvals=[at + 0.475 for at in range(len(columns))],
        ticktext=titles,
    )
    return figure.update_layout(meta={"category_px": 74, "page": 20, "columns": titles, "column_px": 104})


def _work(row: Row) -> str:
    work, *machine = row["where"].split("\n")
    name, *shape = work.split(" · ")
    details = [" · ".join(shape)] * bool(shape) + machine
    return safe(name) + "".join(f'<br><span style="font-size:10px">{safe(line)}</span>' for line in details)


def _blue(row: Row) -> str:
    times = row.get("times_fastest") or 1.0
    depth = next((depth for most, depth in SPEEDS if times <= most), SLOWEST)
    return f"rgba(63,127,214,{depth})"


def _words(row: Row) -> str:
    if row["median_ms"] is None:
        return {"failed": "✕ failed", "unsupported": "– cannot run"}.get(row["kind"], "") + _marks(row)
    interval = interval_of(row)
    sign = "△ predicted<br>" if row["kind"] == "predicted" else ""
    return f"{sign}<b>{duration(row)}</b><br>{bounds(interval) if interval else 'one launch'}{_marks(row)}"


def _marks(row: Row) -> str:
    return f"<br><i>{safe(row['flags'])}</i>" if row.get("flags") else ""
