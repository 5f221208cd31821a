"""How every figure looks: colours that hold on light and dark paper, and a shape or pattern beside each colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

# Each has a contrast of at least 3:1 against white and against the dark page (tested).
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#3f7fd6", "#c8741a", "#2a9583", "#8f6cc4", "#d1495b", "#868b94"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

MARKER = {  # kind of a cell -> words, colour, symbol
    "measured": ("launch", BLUE, "circle"),
    "simulated": ("simulated launch", ORANGE, "diamond-open"),
    "inaccurate": ("launch, output wrong", RED, "x-thin-open"),
    "unchecked": ("launch, not checked", PURPLE, "square-open"),
}
PHASES = {  # phase -> words, colour, pattern
    "start": ("start", GREY, ""),
    "fetch": ("fetch", PURPLE, "."),
    "load": ("load", BLUE, "/"),
    "compile": ("compile", GREEN, "\\"),
    "first_inference": ("first inference", ORANGE, "x"),
}
ROW_PX, FRAME_PX, GAP_PX = 34, 110, 76  # a row, all around the panels, between two panels


def safe(text: object) -> str:
    """Plotly reads a little HTML in its texts; names from outside are shown as they are."""
    return escape(str(text), quote=False)


def panels_px(rows: Sequence[float]) -> float:
    """Height of panels with these numbers of rows and the gaps between them."""
    return sum(ROW_PX * count for count in rows) + GAP_PX * max(len(rows) - 1, 1)


def layout(figure: go.Figure, rows: Sequence[float], x_title: str, dark: bool) -> go.Figure:
    """Height by the number of rows of each panel, quiet axes, legend above."""
    ink, line = ("#e4e6ea", "#2e323a") if dark else ("#1c2026", "#e4e5e8")
    figure.update_layout(
        template="none",
        height=FRAME_PX + panels_px(rows),
        margin={"l": 8, "r": 12, "t": 44, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": ink},
        legend={
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
            "font": {"size": 12},
        },
        bargap=0.3,
    )
    figure.update_xaxes(gridcolor=line, zeroline=False, automargin=True, tickangle=0)
    figure.update_xaxes(title={"text": x_title, "font": {"size": 12}, "standoff": 8}, row=max(len(rows), 1), col=1)
    figure.update_yaxes(showgrid=False, zeroline=False, automargin=True, ticklabelstandoff=8, autorange="reversed")
    return figure


def log_axis(figure: go.Figure, panel: int, values: Sequence[float]) -> None:
    """A logarithmic x axis for one panel, with ticks at round numbers."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    low, high = math.log10(min(positive)), math.log10(max(positive))
    steps = (1, 2, 5) if high - low < 1.2 else (1, 3) if high - low < 2.5 else (1,)
    ticks = [step * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 2) for step in steps]
    margin = max(
        0.1 * (high - low), (0.5 - (high - low)) / 2
    )  # at least half a decade, so that noise looks small and a tick is in it
    figure.update_xaxes(
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks],
        range=[low - margin, high + margin],
        row=panel,
        col=1,
    )
