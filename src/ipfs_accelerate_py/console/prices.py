"""The price table at the terminal."""

from __future__ import annotations

from pathlib import Path

from ..recommend.prices import COLUMNS, read
from ..report.wording import count
from ..store.prices import add_prices, stored_prices
from .table import show as show_rows


def add(file: Path, store: Path) -> None:
    """Keep the rows of a CSV in the store; nothing of it where one row cannot be."""
    found = read(file)
    add_prices(store, [(price.hardware, price.per_hour, price.currency, price.day, price.source) for price in found])
    print(f"{count(len(found), 'price')} of {file} kept in {store}.")


def show(store: Path, *, as_json: bool) -> None:
    """Every price with its date and source."""
    rows = stored_prices(store)
    if not rows and not as_json:
        print(f"{store} has no prices. Keep yours with: ipfs-accelerate prices import FILE.csv")
        return
    show_rows(COLUMNS, rows, as_json=as_json)
