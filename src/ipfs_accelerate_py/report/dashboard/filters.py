"""Filters that combine: a facet keeps rows that have one of its values, a search keeps rows that have all of its words.

``assets/filters.js`` does the same in the page; a test runs both on the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...errors import nearest
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
    """``chosen`` has the wanted values, as text, by facet; no values leave a facet open. A row without a facet passes it."""

    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    search: str = ""

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, str]]) -> Filters:
        """From the pairs of a query string: facets, which may be repeated, and ``search``. UserError names an unknown one."""
        chosen: dict[str, tuple[str, ...]] = {}
        search = ""
        for name, value in parameters:
            if name == "search":
                search = value
            elif name in FACETS:
                chosen[name] = (*chosen.get(name, ()), value)
            else:
                raise nearest(name, [*FACETS, "search"], "filter")
        return cls(chosen, search)

    def keep(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that pass, in their order."""
        words = self.search.lower().split()
        return [row for row in rows if self._passes(row) and (not words or _has(row, words))]

    def _passes(self, row: Row) -> bool:
        return all(name not in row or text(row[name]) in wanted for name, wanted in self.chosen.items())


def text(value: object) -> str:
    """The value as a filter names it."""
    return "" if value is None else str(value)


def facet_values(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """What each facet can be filtered by, with the number of rows that have it."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FACETS}
    for row in rows:
        for name in FACETS:
            if name in row:
                counts[name][text(row[name])] += 1
    return {name: dict(found) for name, found in counts.items()}


def _has(row: Row, words: list[str]) -> bool:
    everything = " ".join(text(row.get(name)) for name in SEARCHED).lower()
    return all(word in everything for word in words)
