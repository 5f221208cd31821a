"""The report as one HTML file that opens from disk, without a network: figures, tables, filters and every launch inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..errors import UserError
from ..spec import identity
from . import figures, sections
from .cells import KINDS, Cell, cells, rankings
from .data import ReportData, plain
from .wording import bounds, milliseconds, repeat_command, shape

FIGURES: dict[str, Callable[[Sequence[Cell]], go.Figure]] = {
    "latency": figures.latency,
    "phases": figures.phases,
    "memory": figures.memory,
    "generation": figures.generation,
}


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the report to ``path`` (its folder is made) and return the path. An earlier report is replaced only by a whole one.

    Raises UserError where it cannot be written (a full disk, no permission).
    """
    return write_file(path, render(data))


def write_file(path: str | Path, text: str) -> Path:
    """Write a page as ``write_report`` does."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"The report {path} cannot be written: {error.strerror}. The measurements are in the store.") from error
    return path


def render(data: ReportData) -> str:
    """The whole file as text."""
    found = cells(data)
    assets = files(__package__) / "assets"
    page = Page(
        title="Where each model runs best",
        style=(assets / "report.css").read_text("utf-8"),
        scripts=[get_plotlyjs(), (assets / "report.js").read_text("utf-8")],
    )
    return page.render(sections.page(data, found, rankings(found)), _payload(data, found))


@dataclass(frozen=True)
class Page:
    """A page in one file. Scripts run only if their hash is in the page's own policy, which also forbids every request."""

    title: str
    style: str
    scripts: Sequence[str]

    def render(self, body: Iterable[str], payload: Any) -> str:
        """The file's text; the payload stands in it as JSON, for the scripts."""
        scripts = [_inline(script) for script in self.scripts]
        policy = "; ".join(
            [
                "default-src 'none'",
                "script-src " + " ".join(f"'sha256-{_digest(script)}'" for script in scripts),
                "style-src 'unsafe-inline'",
                "img-src data: blob:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        )
        return "\n".join(
            [
                '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                '<meta name="color-scheme" content="light dark">',
                f'<title>{self.title}</title>\n<link rel="icon" href="data:,">\n<style>\n{self.style}</style>\n</head>\n<body>',
                *body,
                f'<script type="application/json" id="data">{_json(payload)}</script>',
                *(f"<script>{script}</script>" for script in scripts),
                "</body>\n</html>\n",
            ]
        )


def _payload(data: ReportData, found: Sequence[Cell]) -> dict[str, Any]:
    """What the page's script shows and filters. Machines and environments are many launches' own and stand here once."""
    shared: dict[str, Any] = {}
    return {
        "cells": {cell.id: _cell(cell, data, shared) for cell in found},
        "shared": shared,
        "figures": {
            f"{name}-{identity(group[0].model)}": _figure(draw(group))
            for name, draw in FIGURES.items()
            for group in sections.by_model(sections.drawable(name, found))
        },
    }


def _cell(cell: Cell, data: ReportData, shared: dict[str, Any]) -> dict[str, Any]:
    medians = {launch["launch_id"]: value for launch, value in zip(cell.ok, cell.medians, strict=True)}
    return {
        "model": cell.model,
        "target": cell.target,
        "filters": sections.filter_values(cell),
        "shape": shape(cell.first),
        "kind": cell.kind,
        "meaning": " ".join(KINDS[cell.kind]),
        "median": None if cell.median is None else f"{milliseconds(cell.median, cell.interval)}{cell.marks}",
        "interval": f"{bounds(cell.interval)} ms" if cell.interval else "no interval: it needs two launches",
        "flags": cell.flags,
        "command": repeat_command(cell.first, data.campaign.get("request", {}), len(cell.launches)),
        "launches": [_launch(launch, medians.get(launch["launch_id"]), shared) for launch in cell.launches],
    }


def _launch(launch: Mapping[str, Any], median_ms: float | None, shared: dict[str, Any]) -> dict[str, Any]:
    kept = {**launch, "median_ms": median_ms}
    for name in ("machine", "environment"):
        value = plain(launch[name])
        kept[name] = identity(value)
        shared[kept[name]] = value
    return kept


def _figure(figure: go.Figure) -> dict[str, Any]:
    made = figure.to_plotly_json()
    return {"data": made["data"], "layout": made["layout"]}


def _json(value: Any) -> str:
    """JSON that cannot end its own script element, whatever the strings hold. U+2028 and U+2029 are escaped with all non-ASCII."""
    text = json.dumps(plain(value), separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _inline(script: str) -> str:
    """A script that may stand inside a script element; the one text that must not occur there is its end."""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("a script that is to be inlined holds the end of a script element")
    return script


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
