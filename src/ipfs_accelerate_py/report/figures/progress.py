"""Campaigns: how many launches ended how, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import BLUE, GREY, RED, safe
from .rows import Row, canvas, keys

_ENDED = {
    "done": ("ok", BLUE, ""),
    "failed": ("failed", RED, "x"),
    "unsupported": ("unsupported", GREY, "/"),
    "remaining": ("to do", "rgba(0,0,0,0)", ""),
}


def progress(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """One bar a campaign: launches that ended well, failed, were unsupported, and those still to do."""
    names = [
        f"{safe(str(row['created_at'])[:16])} · {safe(row['campaign'][-6:])}<br>{safe(row['status'])}{_provenance(row)}"
        for row in rows
    ]
    figure = canvas("launches", names, category_px=46, dark=dark)
    for name, (words, colour, pattern) in _ENDED.items():
        figure.add_bar(
            orientation="h",
            x=[row[name] or 0 for row in rows],
            y=names,
            customdata=keys(rows),
            name=words,
            marker={
                "color": colour,
                "line": {"color": GREY, "width": 1},
                "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6, "solidity": 0.25},
            },
            hovertemplate="%{y}: %{x} " + words + "<extra></extra>",
        )
    return figure.update_layout(barmode="stack")


def _provenance(row: Row) -> str:
    return " · simulated" if row["provenance"] == "simulated" else ""
