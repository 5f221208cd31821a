"""The summary for the terminal: model x target with medians and intervals, marks, and what is not there."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .cells import FLAGS, KINDS, Cell, Ranking, cells, rankings
from .data import ReportData
from .findings import findings
from .wording import bounds, rounded


def print_summary(data: ReportData, console: Console | None = None) -> None:
    """Print findings, the table of all cells, the meaning of its marks, and the platforms that are not available."""
    (console or Console()).print(summary(data))


def summary(data: ReportData) -> RenderableType:
    found = cells(data)
    parts: list[RenderableType] = [Text(f"{number}. {line}") for number, line in enumerate(findings(data), start=1)]
    if found:
        parts += [Text(), _table(found, rankings(found)), _legend(found)]
    missing = [platform for platform in data.platforms if not platform["available"]]
    if missing:
        table = Table("not available", "reason", "remedy", box=None, pad_edge=False, header_style="dim")
        for platform in missing:
            table.add_row(*(escape(str(platform.get(key) or "")) for key in ("name", "reason", "remedy")))
        parts += [Text(), table]
    return Group(*parts)


def _table(found: list[Cell], ranked: list[Ranking]) -> Table:
    """One row per cell: as narrow as a terminal is, and every cell has room for its reason."""
    table = Table("model", "target", box=None, pad_edge=False, header_style="dim")
    table.add_column("median ms", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("launches", justify="right")
    table.add_column("", overflow="fold")
    best = {ranking.best.id for ranking in ranked if ranking.best}
    level = {
        cell.id: "≈ equal" if ranking.equal else "fastest not decided"
        for ranking in ranked
        if ranking.level
        for cell in (ranking.order[0], *ranking.level)
    }
    model = ""
    for cell in found:
        if model and cell.model != model:
            table.add_row()
        shown = escape(cell.model) if cell.model != model else ""
        model = cell.model
        launches = f"{len(cell.ok)}/{len(cell.started)}"
        if cell.median is None:
            symbol, words = KINDS[cell.kind]
            reason = f"{cell.first['error_message'] or words}{cell.marks}"
            table.add_row(
                shown, escape(cell.target), symbol, "", launches, f"[dim]{escape(cell.kind)}: {escape(str(reason))}[/dim]"
            )
            continue
        place = "[bold green]fastest[/]" if cell.id in best else level.get(cell.id, "")
        notes = f"{place}{escape(cell.marks)}".strip()
        table.add_row(shown, escape(cell.target), rounded(cell.median, cell.interval), bounds(cell.interval), launches, notes)
    return table


def _legend(found: list[Cell]) -> Text:
    """Only the marks that occur."""
    marks = {mark for cell in found for mark, _ in cell.flags}
    kinds = {cell.kind for cell in found} & {"failed", "unsupported"}
    meanings = {mark: words for mark, words in FLAGS.items() if mark in marks}
    meanings.update({KINDS[kind][0]: KINDS[kind][1] for kind in sorted(kinds)})
    return Text("\n".join(f"{mark:>14}  {words}" for mark, words in meanings.items()), style="dim")
