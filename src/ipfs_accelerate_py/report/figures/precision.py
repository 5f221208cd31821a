"""Bits per weight against the error of the output, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import safe
from .rows import KIND_MARKS, Row, by_kind, keys, one_line, plane


def quality(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """1 - cosine against bits per weight, logarithmic: lower is nearer to the float32 reference. Exact agreement is drawn at 1e-9."""
    figure = plane(
        "bits per weight, from the bytes of the weights", "1 - cosine to the float32 reference", dark=dark, log_x=False
    )
    for kind, found in by_kind(
        [row for row in rows if row["bits_per_weight"] is not None and row["cosine"] is not None]
    ).items():
        words, colour, symbol, _ = KIND_MARKS[kind]
        figure.add_scatter(
            mode="markers",
            x=[row["bits_per_weight"] for row in found],
            y=[max(1 - row["cosine"], 1e-9) for row in found],
            customdata=keys(found),
            name=words,
            marker={"color": colour, "symbol": symbol, "size": 10, "opacity": 0.75, "line": {"width": 1.5, "color": colour}},
            hovertext=[
                f"{one_line(row)}<br>{safe(row['target'])}, {safe(row['precision'])}: cosine {row['cosine']:.6g}"
                for row in found
            ],
            hoverinfo="text",
        )
    figure.update_yaxes(exponentformat="power")
    return figure
