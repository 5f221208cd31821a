"""Rows of a query at the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """Print rows as a table, or as a JSON list of objects (values that JSON lacks as text)."""
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1, default=str, ensure_ascii=False))
        return
    table = Table(*(Column(name, no_wrap=True) for name in columns))
    for row in rows:
        table.add_row(*("" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value) for value in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a pipe has no width that something would have to be cut to
        console.width = 10_000
    console.print(table)
    console.print(f"{len(rows)} rows")
