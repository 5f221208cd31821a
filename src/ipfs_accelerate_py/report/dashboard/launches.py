"""One row per launch. A store may hold a million: they are filtered, counted and cut in SQL, and only those shown are read whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from . import tables
from .filters import SEARCHED, Filters, text
from .snapshot import Row, Snapshot

_OF_LAUNCH = ("error_class", "error_message", "campaign")  # what a search finds in a launch; the rest is its cell's
_LABELS = ("model", "target", "machine", "where", "kind", "flags")
_QUANTILES = ("p5_ms", "p25_ms", "p75_ms", "p95_ms")
_KEPT = """
    FROM (SELECT unnest($cells) AS cell, unnest($told) AS told) AS asked JOIN seen_launch USING (cell)
    WHERE (len($campaigns::VARCHAR[]) = 0 OR list_contains($campaigns::VARCHAR[], campaign_id)) AND {words}
"""
_HAS_WORD = "(contains(told, ${0}) OR contains(lower(concat_ws(' ', error_class, error_message, campaign_id)), ${0}))"
_ROWS = """
    WITH kept AS (
        SELECT seen_launch.* {kept}
        ORDER BY model_class, size, precision, batch_size, platform, engine, browser, device, cell, started_at, launch_id
        LIMIT {limit}
    )
    SELECT kept.*, list_aggregate(launch.samples_ns, 'quantile_cont', [0.05, 0.25, 0.75, 0.95]) AS quantiles
    FROM kept JOIN launch USING (launch_id)
    ORDER BY kept.model_class, kept.size, kept.precision, kept.batch_size, kept.platform, kept.engine, kept.browser, kept.device, kept.cell,
        kept.started_at, launch_id
"""


def launches(snapshot: Snapshot, filters: Filters | None = None, limit: int | None = None) -> tuple[list[Row], int]:
    """The first ``limit`` launches that pass the filters (all where it is None), each with the labels and kind of its cell and the
    quantiles of its steady iterations in milliseconds, and how many pass."""
    chosen = filters or Filters()
    cells = {row["cell"]: row for row in tables.cells(snapshot)}
    facets = {name: values for name, values in chosen.chosen.items() if name != "campaign"}
    asked = replace(chosen, chosen=facets, search="").keep(cells.values())
    names = [name for name in SEARCHED if name not in _OF_LAUNCH]
    words = {f"word_{place}": word for place, word in enumerate(chosen.search.lower().split())}
    arguments: dict[str, Any] = {
        "cells": [row["cell"] for row in asked],
        "told": [" ".join(text(row.get(name)) for name in names).lower() for row in asked],
        "campaigns": list(chosen.chosen.get("campaign", ())),
        **words,
    }
    kept = _KEPT.format(words=" AND ".join(["true", *(_HAS_WORD.format(name) for name in words)]))
    total = snapshot.rows(f"SELECT count(*) AS n {kept}", arguments)[0]["n"] if asked else 0
    found = snapshot.rows(_ROWS.format(kept=kept, limit=total if limit is None else limit), arguments) if total else []
    for row in found:
        row.update({name: cells[row["cell"]][name] for name in _LABELS})
        row["campaign"] = row["campaign_id"]
        spread = row.pop("quantiles") if row["status"] == "ok" else None
        row.update(zip(_QUANTILES, [value / 1e6 for value in spread] if spread else [None] * 4, strict=True))
    return found, total


def facet_counts(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """What each facet can be filtered by, with the number of launches of the whole store that have it."""
    if not (cells := {row["cell"]: row for row in tables.cells(snapshot)}):
        return {name: {} for name in tables.FACETS}
    counts: dict[str, Counter[str]] = {name: Counter() for name in tables.FACETS}
    for row in snapshot.rows("SELECT cell, campaign_id, count(*) AS n FROM seen_launch GROUP BY ALL ORDER BY ALL"):
        values = {**cells[row["cell"]], "campaign": row["campaign_id"]}
        for name in tables.FACETS:
            counts[name][text(values[name])] += row["n"]
    return {name: dict(found) for name, found in counts.items()}
