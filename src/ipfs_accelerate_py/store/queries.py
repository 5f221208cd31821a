"""Reading the store. Every function opens the file, fetches all and closes, so that a reader never keeps the writer waiting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..errors import UserError, nearest
from ..measure.record import LaunchRecord
from .connection import reading
from .rows import from_row

Row = dict[str, Any]

_SANDBOX = {"enable_external_access": "false", "python_enable_replacements": "false", "lock_configuration": "true"}


def run_sql(path: Path, sql: str, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and at most ``limit`` rows of one statement. It cannot write, nor read any file but the store.

    UserError when the statement is not one statement, or fails.
    """
    with reading(path, _SANDBOX) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1:
                raise UserError(f"One SQL statement at a time, please: this text has {len(statements)}.")
            result = connection.execute(statements[0])
            rows = result.fetchall() if limit is None else result.fetchmany(limit)
            return [column[0] for column in result.description or ()], rows
        except duckdb.Error as error:
            # DuckDB's hint ("Did you mean ...") is on the next lines, a drawing of where it was after them.
            told = str(error).split("\n\nLINE ")[0]
            raise UserError(" ".join(told.split())) from error


def launches(path: Path, **filters: Any) -> list[Row]:
    """Rows of ``launch_summary`` in the order in which they started. A filter is a column and its value, or a list of values."""
    return _filtered(path, "launch_summary", [], filters, "campaign_id, order_index, started_at")


def spec_summaries(path: Path, campaign_id: str | None = None, **filters: Any) -> list[Row]:
    """Rows of ``spec_summary``, of one campaign or of all; fastest first, those without a result last."""
    return _filtered(path, "spec_summary_of(?)", [campaign_id], filters, "median_ms NULLS LAST, spec_hash")


def campaigns(path: Path) -> list[Row]:
    """Rows of ``campaign_summary``: status, and how many launches were planned and how they ended. Latest first."""
    return _filtered(path, "campaign_summary", [], {}, "campaign_id DESC")


def campaign(path: Path, campaign_id: str | None = None) -> Row:
    """One campaign's row of ``campaign_summary`` with its ``plan``; the latest where no id is given. UserError if there is none."""
    rows = _filtered(
        path,
        "(SELECT campaign_summary.*, plan FROM campaign_summary JOIN campaign USING (campaign_id))",
        [],
        {} if campaign_id is None else {"campaign_id": campaign_id},
        "campaign_id DESC LIMIT 1",
    )
    if not rows:
        known = [row["campaign_id"] for row in campaigns(path)]
        if campaign_id is None or not known:
            raise UserError(f"The store {path} has no campaign yet: run 'ipfs-accelerate bench --store {path}'.")
        raise nearest(campaign_id, known, "campaign")
    return {**rows[0], "plan": json.loads(rows[0]["plan"])}


def records(path: Path, campaign_id: str | None = None) -> list[LaunchRecord]:
    """All launches as they were measured, with every raw sample, in the order in which they ran."""
    sql = """
        SELECT launch.*, machine.facts AS machine, environment.facts AS environment, workload, target, accuracy
        FROM launch
        JOIN machine USING (machine_hash)
        JOIN environment USING (environment_hash)
        JOIN spec USING (spec_hash)
        JOIN workload USING (workload_hash)
        JOIN target USING (target_hash)
        LEFT JOIN accuracy USING (launch_id)
        WHERE $campaign IS NULL OR campaign_id = $campaign
        ORDER BY campaign_id, started_at, order_index, launch_id
    """
    with reading(path) as connection:
        return [from_row(row) for row in _fetch(connection, sql, {"campaign": campaign_id})]


def durations(path: Path, machine_hash: str, provenance: str = "measured") -> list[Row]:
    """spec_hash, platform, engine, browser and duration_s of the launches that ended well on this machine: an estimate's grounds."""
    columns = ("spec_hash", "platform", "engine", "browser", "duration_s")
    rows = launches(path, status="ok", machine_hash=machine_hash, provenance=provenance)
    return [{column: row[column] for column in columns} for row in rows]


def _filtered(path: Path, source: str, arguments: list[Any], filters: dict[str, Any], order: str) -> list[Row]:
    with reading(path) as connection:
        columns = [row[0] for row in connection.execute(f"DESCRIBE FROM {source}", arguments).fetchall()]
        conditions = ["true"]
        for name, value in filters.items():
            if name not in columns:
                raise nearest(name, columns, "column")
            values = list(value) if isinstance(value, list | tuple | set) else [value]
            alternatives = [f"{name} IS NOT DISTINCT FROM ?"] * len(values)
            conditions.append(f"({' OR '.join(alternatives) or 'false'})")
            arguments = [*arguments, *values]
        return _fetch(connection, f"FROM {source} WHERE {' AND '.join(conditions)} ORDER BY {order}", arguments)


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str, arguments: Sequence[Any] | dict[str, Any]) -> list[Row]:
    result = connection.execute(sql, arguments)
    columns = [column[0] for column in result.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
