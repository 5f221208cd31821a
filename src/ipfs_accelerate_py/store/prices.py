"""The user's price table in a store: what an hour of a device costs, since when, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from .connection import connect, reading
from .writer import Store

Row = tuple[str, float, str, date, str]  # hardware, price per hour, currency, day, source
_PATIENCE_S = 10.0


def add_prices(path: Path, rows: Sequence[Row]) -> None:
    """Add them to a store, which is made if it is missing. A price of the same hardware, currency and day is replaced."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with connect(Store.create_or_open(path).path, read_only=False, patience_s=_PATIENCE_S) as connection:
        connection.execute("BEGIN")
        for row in rows:
            connection.execute("INSERT OR REPLACE INTO price VALUES (?, ?, ?, ?, ?, ?)", [*row, now])
        connection.execute("COMMIT")


def stored_prices(path: Path) -> list[Row]:
    """All of them, by hardware and day."""
    with reading(path) as connection:
        return connection.execute(
            "SELECT hardware, price_per_hour, currency, day, source FROM price ORDER BY hardware, day, currency"
        ).fetchall()
