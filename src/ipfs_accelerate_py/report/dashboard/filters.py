"""Filters that combine: a facet keeps rows that have one of its values, a search keeps rows that have all of its words.

``assets/filters.js`` does the same in the page; a test runs both on the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...errors import UserError, nearest
from .snapshot import Row
from .tables import FACETS

SEARCHED = (
    "model",
    "target",
    "where",
    "task",
    "precision",
    "machine",
    "kind",
    "error_class",
    "error_message",
    "campaign",
    "verdict",
)


@dataclass(frozen=True)
class Filters:
    """``chosen`` has the wanted values, as text, by facet; no values leave a facet open. A row without a facet passes it. ``whole`` asks
    for the rows that a view leaves out because a page could not draw them."""

    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    search: str = ""
    whole: bool = False

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, str]]) -> Filters:
        """From the pairs of a query string: facets, which may be repeated, ``search``, and ``limit=0``. UserError names an unknown one."""
        chosen: dict[str, tuple[str, ...]] = {}
        search, whole = "", False
        for name, value in parameters:
            if name == "search":
                search = value
            elif name == "limit":
                if value != "0":
                    raise UserError(f"limit takes 0, which leaves no row out, not '{value}'.")
                whole = True
            elif name in FACETS:
                chosen[name] = (*chosen.get(name, ()), value)
            else:
                raise nearest(name, [*FACETS, "search", "limit"], "filter")
        return cls(chosen, search, whole)

    def keep(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that pass, in their order."""
        words = self.search.lower().split()
        return [row for row in rows if self._passes(row) and (not words or _has(row, words))]

    def _passes(self, row: Row) -> bool:
        return all(name not in row or text(row[name]) in wanted for name, wanted in self.chosen.items())


def text(value: object) -> str:
    """The value as a filter names it."""
    return "" if value is None else str(value)


def _has(row: Row, words: list[str]) -> bool:
    everything = " ".join(text(row.get(name)) for name in SEARCHED).lower()
    return all(word in everything for word in words)
