"""``matrix``: the compatibility matrix at the terminal, as Markdown, as JSON or as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.markup import escape as unmarked
from rich.table import Table

from ..errors import UserError, nearest
from ..paths import reference_folders
from ..report.matrix import Matrix, read_matrix
from ..report.matrix_sections import Cell, Runs, Section, sections

REFERENCE = ("with", "only", "without")
SHOWN_RUNS = 3


def show(
    stores: Sequence[Path], default: Path, reference: str, format_: str, output: Path | None, *, ask_browsers: bool
) -> None:
    """Print the matrix, or write it to ``output``. Without ``stores`` the default one is taken if it is there."""
    formats: dict[str, Callable[[Matrix, list[Section]], str]] = {
        "table": _table,
        "markdown": _markdown,
        "json": _json,
        "html": _html,
    }
    if format_ not in formats:
        raise nearest(format_, formats, "format")
    if reference not in REFERENCE:
        raise nearest(reference, REFERENCE, "way to use reference data")
    sources = list(stores) or [path for path in (default,) if path.exists()]
    shipped = [] if reference == "without" else reference_folders()
    sources = shipped if reference == "only" else [*shipped, *sources]
    if output and any(output.resolve() == source.resolve() for source in sources):
        raise UserError(f"The matrix would overwrite the store {output}: name another file with --output.")
    if not sources:
        raise UserError("There is nothing to rate: 'ipfs-accelerate bench' makes a store, or take the reference data with it.")
    matrix = read_matrix(sources)
    live = None
    if ask_browsers:
        from ..platforms.browser_platform import browser_facts

        with Console(stderr=True).status("Asking the browsers of this machine ..."):
            live = browser_facts()
    text = formats[format_](matrix, sections(matrix, live))
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from error


def _table(matrix: Matrix, found: list[Section]) -> str:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400
    with console.capture() as captured:
        for section in found:
            console.print(f"\n[bold]{section.title}[/bold]")
            if section.text:
                console.print(unmarked(re.sub(r"\*\*|`", "", section.text)))
            if section.rows:
                table = Table(*section.head)
                for row in section.rows:
                    table.add_row(*(unmarked(_text(cell)) for cell in row))
                console.print(table)
    return captured.get()


def _markdown(matrix: Matrix, found: list[Section]) -> str:
    """The whole file; GitHub's tables."""
    lines = ["<!-- Written by `make docs`: ipfs-accelerate matrix --reference only --format markdown. -->"]
    for level, section in enumerate(found):
        lines += ["", f"{'#' if level == 0 else '##'} {section.title}", ""]
        lines += [section.text, ""] if section.text else []
        if section.rows:
            lines += [_line(section.head), _line(["---"] * len(section.head))]
            lines += [_line([_text(cell, "`") for cell in row]) for row in section.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"


def _json(matrix: Matrix, found: list[Section]) -> str:
    return json.dumps(matrix.to_dict(), indent=1, ensure_ascii=False) + "\n"


def _html(matrix: Matrix, found: list[Section]) -> str:
    """One file in the report's style; a run is a link into its store's report where there is one."""
    style = (files("ipfs_accelerate_py.report") / "assets" / "report.css").read_text("utf-8")
    body = []
    for level, section in enumerate(found):
        heading = "h1" if level == 0 else "h2"
        text = "".join(f'<p class="lead">{_inline(part)}</p>' for part in section.text.split("\n\n") if part)
        head = "".join(f"<th>{escape(name)}</th>" for name in section.head)
        rows = "".join(f"<tr>{''.join(f'<td>{_cell(matrix, cell)}</td>' for cell in row)}</tr>" for row in section.rows)
        table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>' if rows else ""
        body.append(f"<section><{heading}>{escape(section.title)}</{heading}>{text}{table}</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>Compatibility matrix</title><style>{style}</style></head>\n'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _cell(matrix: Matrix, cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return " ".join(
        f'<a href="{escape(address)}#run={spec}">{spec[:8]}</a>'
        if (address := matrix.reports.get((cell.machine, spec)))
        else spec[:8]
        for spec in cell.specs
    )


def _text(cell: Cell, quote: str = "") -> str:
    if not isinstance(cell, Runs):
        return cell
    more = f" and {len(cell.specs) - SHOWN_RUNS} more" if len(cell.specs) > SHOWN_RUNS else ""
    return " ".join(f"{quote}{spec}{quote}" for spec in cell.specs[:SHOWN_RUNS]) + more


def _inline(text: str) -> str:
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)
