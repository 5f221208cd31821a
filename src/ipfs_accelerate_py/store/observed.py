"""Rows beside the launches: what probes measured of devices, and what was predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..measure.record import uuid7
from ..spec import Target, canonical_json, identity
from .connection import connect, reading
from .rows import storable
from .writer import Store

_PATIENCE_S = 10.0


def add_probe(
    path: Path, target: Target, machine: Mapping[str, Any], environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Store one run of a probe: rows of ``kind, precision, size, value, samples_ns, facts``. Returns its session's id."""
    session, now = uuid7(), datetime.now(UTC).replace(tzinfo=None)
    machine, environment = storable(machine), storable(environment)
    keys = (identity(machine), identity(environment), target.hash)
    with connect(Store.create_or_open(path).path, read_only=False, patience_s=_PATIENCE_S) as connection:
        connection.execute("BEGIN")
        for table, key, facts in (("machine", keys[0], machine), ("environment", keys[1], environment)):
            connection.execute(f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT DO NOTHING", [key, canonical_json(facts)])
        connection.execute(
            "INSERT INTO target VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", [target.hash, *asdict(target).values()]
        )
        for row in rows:
            values = [uuid7(), session, *keys, now, "measured", row["kind"], row["precision"], row["size"], row["value"]]
            values += [row["samples_ns"], canonical_json(storable(row["facts"]))]
            connection.execute(f"INSERT INTO probe VALUES ({', '.join('?' * len(values))})", values)
        connection.execute("COMMIT")
    return session


def probes(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of the latest measured probe of each device, by ``machine|platform|engine|device|browser``."""
    sql = """
        WITH latest AS (
            SELECT machine_hash, target_hash, arg_max(session_id, measured_at) AS session_id
            FROM probe WHERE provenance = 'measured' GROUP BY ALL
        )
        SELECT concat_ws('|', machine_hash, platform, engine, device, coalesce(browser, '')), kind, precision, size, value,
            coalesce(CAST(facts ->> '$.engine.software_adapter' AS BOOLEAN), false)
        FROM latest JOIN probe USING (machine_hash, target_hash, session_id) JOIN target USING (target_hash)
        ORDER BY ALL
    """
    with reading(path) as connection:
        found = connection.execute(sql).fetchall()
    columns = ("kind", "precision", "size", "value", "software_adapter")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for key, *values in found:
        grouped.setdefault(key, []).append(dict(zip(columns, values, strict=True)))
    return grouped


def energies(path: Path) -> list[tuple[str, str, str, str, bool, dict[str, Any]]]:
    """(spec, machine, platform, device, whether its adapter is a software one, what ``measure.energy`` kept) of measured launches that
    ended well."""
    sql = """
        SELECT spec_hash, machine_hash, platform, device, coalesce(software_adapter, false), facts ->> '$.energy'
        FROM launch JOIN spec USING (spec_hash) JOIN target USING (target_hash)
        WHERE status = 'ok' AND provenance = 'measured' AND facts ->> '$.energy' IS NOT NULL
        ORDER BY started_at, launch_id
    """
    with reading(path) as connection:
        return [(*rest, json.loads(facts)) for *rest, facts in connection.execute(sql).fetchall()]


def add_predictions(path: Path, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Store predictions: rows with the columns of the table but for its first three. What was measured is no prediction: ValueError."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with connect(Store.create_or_open(path).path, read_only=False, patience_s=_PATIENCE_S) as connection:
        columns = [row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE prediction)").fetchall()]
        connection.execute("BEGIN")
        for row in predictions:
            if row["provenance"] != "predicted":
                raise ValueError(f"a row that is {row['provenance']} is no prediction")
            values = {"prediction_id": uuid7(), "predicted_at": now, **row}
            connection.execute(
                f"INSERT INTO prediction VALUES ({', '.join('?' * len(columns))})", [values[name] for name in columns]
            )
        connection.execute("COMMIT")
