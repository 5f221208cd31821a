"""What hardware costs, from the user's own table. Nothing is looked up and nothing is assumed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ..errors import UserError
from ..predict.prediction import Interval
from ..spec import PLATFORMS
from .places import Place

COLUMNS = ("hardware", "price_per_hour", "currency", "date", "source")
HOW = (
    "give a CSV with the columns " + ", ".join(COLUMNS) + " (--prices FILE), or keep it in a store with "
    "'ipfs-accelerate prices import FILE' and name that store (--store)"
)


@dataclass(frozen=True)
class Price:
    """``hardware`` is a platform (cpu, cuda) or words of a device's name (h200); ``per_hour`` of one device, in ``currency``."""

    hardware: str
    per_hour: float
    currency: str
    day: date
    source: str

    @property
    def said(self) -> str:
        return f"An hour of it costs {self.per_hour:g} {self.currency} ({self.source}, {self.day})."


def read(path: Path) -> list[Price]:
    """The rows of a price table. UserError for a missing file, a missing column or a row that cannot be, with its line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"The price table {path} cannot be read: {error.strerror}; {HOW}.") from error
    rows = csv.DictReader(lines)
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise UserError(f"The price table {path} has no column {', '.join(missing)}: {HOW}.")
    return [_price(row, path, line) for line, row in enumerate(rows, start=2)]


def table(file: Path | None, store: Path | None) -> list[Price]:
    """The prices of the CSV where one is given, otherwise those that the store keeps; none without either."""
    if file is not None or store is None:
        return [] if file is None else read(file)
    from ..store.prices import stored_prices

    return [Price(*row) for row in stored_prices(store)]


def comparable(prices: Iterable[Price]) -> None:
    """UserError where nothing can be compared by these prices: none are there, or they are in several currencies."""
    currencies = sorted({price.currency for price in prices})
    if not currencies:
        raise UserError(f"There are no prices to compare by: {HOW}.")
    if len(currencies) > 1:
        raise UserError(f"The prices are in {' and '.join(currencies)}, and nothing is converted: give them in one currency.")


def _price(row: dict[str, str | None], path: Path, line: int) -> Price:
    text = {name: (row[name] or "").strip() for name in COLUMNS}
    if empty := [name for name, value in text.items() if not value]:
        raise UserError(f"{path}, line {line}: {', '.join(empty)} is empty; a price needs its date and its source.")
    try:
        value, day = float(text["price_per_hour"]), date.fromisoformat(text["date"])
    except ValueError as error:
        raise UserError(f"{path}, line {line}: {error}.") from error
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{path}, line {line}: price_per_hour must be more than 0, not {text['price_per_hour']}.")
    return Price(text["hardware"].lower(), value, text["currency"], day, text["source"])


def find(prices: Iterable[Price], place: Place) -> Price | None:
    """The price of a place: of its device by name before that of its platform; of several the latest."""
    words = set(place.description.lower().split())
    by_device = [price for price in prices if price.hardware not in PLATFORMS and set(price.hardware.split()) <= words]
    fitting = by_device or [price for price in prices if price.hardware == place.platform]
    return max(fitting, key=lambda price: (len(price.hardware.split()), price.day), default=None)


def per_million(price: Price, throughput_per_s: Interval, devices: int = 1) -> Interval:
    """Of 10^6 items, in the price's currency."""
    return throughput_per_s.inverse(devices * price.per_hour / 3600 * 1e6)
