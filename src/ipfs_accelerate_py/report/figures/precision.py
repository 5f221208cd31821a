"""Bits per weight against perplexity, and against the error of the output, of a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ...store.quality import OURS
from ..style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, safe
from .rows import KIND_MARKS, Row, by_kind, error_bars, keys, one_line, plane

# Whose weights, or our cache -> words, colour, symbol: told apart without the colour. Further peers take the next of _OTHERS.
_MAKERS = {
    (OURS, False): ("our weights", BLUE, "circle"),
    ("llama.cpp", False): ("llama.cpp's weights", ORANGE, "diamond"),
    (OURS, True): ("our key-value cache", GREEN, "square"),
}
_OTHERS = ((PURPLE, "triangle-up"), (RED, "cross"), (GREY, "pentagon"))
LINEAR_UP_TO = 4.0  # times the lowest perplexity: above it the axis is logarithmic


def quality(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """Perplexity against bits, rows of the view ``quality``. Bars are the 95 % interval of the ratio to the float weights, times those
    weights' perplexity, so a bar that stays above the dotted line is a loss that the windows show."""
    drawn = [row for row in rows if row["perplexity"] is not None]
    values = [row["perplexity"] for row in drawn] or [1.0]
    cached = any(row["bits_per_cached_value"] for row in drawn)
    figure = plane(
        "bits per weight" + (" (squares: per cached value)" if cached else ", scales included"),
        "perplexity on held-out text",
        dark=dark,
        log_x=False,
        log_y=max(values) > LINEAR_UP_TO * min(values),
    )
    for row in drawn:
        if row["is_reference"]:
            _float_line(figure, row, drawn)
    groups: dict[tuple[str, bool, str], list[Row]] = {}
    for row in drawn:
        if not row["is_reference"]:
            groups.setdefault((row["made_by"], bool(row["bits_per_cached_value"]), row["provenance"]), []).append(row)
    others = iter(_OTHERS * len(groups))
    styles: dict[tuple[str, bool], tuple[str, str, str]] = dict(_MAKERS)
    for (maker, cache, provenance), found in groups.items():
        if (maker, cache) not in styles:
            styles[maker, cache] = (f"{maker}'s {'key-value cache' if cache else 'weights'}", *next(others))
        words, colour, symbol = styles[maker, cache]
        bounded = [
            {
                "perplexity": row["perplexity"],
                "low": _bound(row, "perplexity_ratio_low"),
                "high": _bound(row, "perplexity_ratio_high"),
            }
            for row in found
        ]
        figure.add_scatter(
            mode="markers",
            x=[_bits(row) for row in found],
            y=[row["perplexity"] for row in found],
            customdata=keys(found),
            name=safe(words) + (", simulated" if provenance == "simulated" else ""),
            marker={
                "color": colour,
                "symbol": symbol + ("-open" if provenance == "simulated" else ""),
                "size": 10,
                "line": {"width": 1.5, "color": colour},
            },
            error_y={**error_bars(bounded, "perplexity", "low", "high"), "color": colour},
            hovertext=[_told(row) for row in found],
            hoverinfo="text",
        )
    return figure.update_layout(height=540)


def _float_line(figure: go.Figure, reference: Row, drawn: Sequence[Row]) -> None:
    """The perplexity of the float weights, across the bits of the formats that are paired with them."""
    same = ("model", "origin", "tokens", "machine", "provenance")
    paired = [row for row in drawn if all(row[name] == reference[name] for name in same) and not row["is_reference"]]
    bits = [_bits(row) for row in paired or [reference]]  # not as far as 32 bits, where nothing but the line would be
    figure.add_scatter(
        mode="lines",
        x=[min(bits), max(bits)],
        y=[reference["perplexity"]] * 2,
        customdata=keys([reference]) * 2,
        name=f"float: {safe(reference['model'])}" + (", simulated" if reference["provenance"] == "simulated" else ""),
        line={"color": GREY, "dash": "dot", "width": 1.5},
        hovertext=[_told(reference)] * 2,
        hoverinfo="text",
    )


def _bits(row: Row) -> float:
    return row["bits_per_cached_value"] or row["bits_per_weight"]


def _bound(row: Row, name: str) -> float | None:
    """A bound of the ratio, as a perplexity."""
    return None if row[name] is None else row["perplexity"] / row["perplexity_ratio"] * row[name]


def _told(row: Row) -> str:
    said = f"{one_line(row)}<br>{safe(row['precision'])}, {safe(row['made_by'])}: perplexity {row['perplexity']:.4g}"
    if row["perplexity_ratio_low"] is None:
        return said
    low, high = row["perplexity_ratio_low"], row["perplexity_ratio_high"]
    return f"{said}, {row['perplexity_ratio']:.4f}× the float weights' [{low:.4f}, {high:.4f}]"


def agreement(rows: Sequence[Row], dark: bool = False) -> go.Figure:
    """1 - cosine against bits per weight, logarithmic, rows of the view ``agreement``: lower is nearer to the float32 reference. Exact
    agreement is drawn at 1e-9."""
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
