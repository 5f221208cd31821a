"""Perplexities in a store: what each low-bit format of a model lost on a held-out text, by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..measure.record import uuid7
from ..spec import canonical_json, identity
from .connection import connect, reading
from .rows import storable
from .writer import Store

OURS = "ipfs_accelerate_py"
REFERENCE = "float32"  # the format of the row that the others of a run are paired with
_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class QualityRow:
    """One format on one text. ``nats`` [windows] is the mean negative log-likelihood of each window's scored tokens, ``tokens`` their
    number in all; ``bits_per_cached_value`` is None where the key-value cache is float."""

    format: str
    bits_per_weight: float
    nats: Sequence[float]
    tokens: int
    made_by: str = OURS
    solver: str | None = None
    bits_per_cached_value: float | None = None
    is_reference: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QualitySession:
    """What all formats of one run share. ``origin`` is that of the weights, ``windows_sha256`` of the tokens that were read."""

    model: str
    origin: str
    windows_sha256: str
    machine: Mapping[str, Any]
    provenance: str = "measured"
    id: str = field(default_factory=uuid7)


def add_quality(path: Path, session: QualitySession, rows: Sequence[QualityRow]) -> None:
    """Add formats to a store, which is made if it is missing. ValueError for windows that are not those of the run's reference."""
    machine = storable(session.machine)
    key, now = identity(machine), datetime.now(UTC).replace(tzinfo=None)
    with connect(Store.create_or_open(path).path, read_only=False, patience_s=_PATIENCE_S) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO machine VALUES (?, ?) ON CONFLICT DO NOTHING", [key, canonical_json(machine)])
        for row in rows:
            values: dict[str, Any] = {
                **{name: storable(value) for name, value in vars(row).items() if name != "facts"},
                "quality_id": uuid7(),
                "session_id": session.id,
                "machine_hash": key,
                "measured_at": now,
                "provenance": session.provenance,
                "model": storable(session.model),
                "origin": session.origin,
                "nats": [float(value) for value in row.nats],
                "windows_sha256": session.windows_sha256,
                "facts": canonical_json(storable(row.facts)),
            }
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO quality ({names}) VALUES ({marks})", list(values.values()))
        shapes = connection.execute(
            "SELECT DISTINCT len(nats), tokens FROM quality WHERE session_id = ?", [session.id]
        ).fetchall()
        if len(shapes) > 1:
            raise ValueError(f"formats of one run are compared on the same windows; these have {shapes} (windows, tokens)")
        connection.execute("COMMIT")


def qualities(path: Path) -> list[dict[str, Any]]:
    """All rows, the latest first."""
    with reading(path) as connection:
        result = connection.execute("FROM quality ORDER BY measured_at DESC, quality_id DESC")
        columns = [column[0] for column in result.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
