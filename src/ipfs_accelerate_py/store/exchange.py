"""Stores as files for other tools and other machines: Parquet and JSON go both ways, CSV goes out only.

Parquet and CSV are a folder with one file per table and ``manifest.json``; CSV has ``launch_summary.csv``, all in one, as well.
JSON is one file: ``{"schema_version": 6, "tables": {"launch": [{"launch_id": ..., "samples_ns": [...], ...}, ...], ...}}``, with
timestamps as ISO 8601 in UTC and numbers that are not finite as the texts "nan", "inf" and "-inf".

Every table of results (``launch``, ``accuracy``, ``launch_summary``, ``probe``, ``prediction``, ``quality``) has a column
``provenance``, and ``provenance`` of the manifest (of the JSON file) counts the launches of each. An import keeps it, and refuses rows
whose provenance is not that of their campaign.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from ..errors import UserError, nearest
from ..spec import canonical_json
from .connection import connect, reading
from .migration import SCHEMA_VERSION, migrate
from .rows import storable
from .writer import MISMARKED, Store

FORMATS = ("parquet", "csv", "json")
# Each table before those that refer to it, with the condition that keeps what one campaign needs.
_LAUNCHED = "IN (SELECT {0} FROM launch WHERE campaign_id = $campaign)"
_TABLES = {
    "machine": "machine_hash " + _LAUNCHED.format("machine_hash"),
    "environment": "environment_hash " + _LAUNCHED.format("environment_hash"),
    "workload": "workload_hash IN (SELECT workload_hash FROM spec WHERE spec_hash " + _LAUNCHED.format("spec_hash") + ")",
    "target": "target_hash IN (SELECT target_hash FROM spec WHERE spec_hash " + _LAUNCHED.format("spec_hash") + ")",
    "spec": "spec_hash " + _LAUNCHED.format("spec_hash"),
    "campaign": "campaign_id = $campaign",
    "campaign_end": "campaign_id = $campaign",
    "launch": "campaign_id = $campaign",
    "accuracy": "launch_id " + _LAUNCHED.format("launch_id"),
    "probe": "machine_hash " + _LAUNCHED.format("machine_hash") + " AND target_hash IN (SELECT target_hash FROM spec WHERE "
    "spec_hash " + _LAUNCHED.format("spec_hash") + ")",
    "prediction": "false",  # belongs to no campaign
    "quality": "false",  # nor does this
}
_SINCE = {"probe": 4, "prediction": 4, "quality": 6}  # the schema that a table came with: older exports lack it


_MARKED = ("accuracy",)  # has results and leaves the store with the provenance of its launch


@dataclass(frozen=True)
class Imported:
    """How many launches were read, and how many of them the store did not have yet."""

    read: int
    added: int

    def __str__(self) -> str:
        return f"{self.added} new launches of {self.read} read"


def export(path: Path, destination: Path, format_: str = "parquet", campaign: str | None = None) -> Path:
    """Write the store, or one campaign of it, to ``destination`` and return that. Nothing that is there is overwritten."""
    destination = Path(destination)
    if format_ not in FORMATS:
        raise nearest(format_, FORMATS, "format")
    if destination.exists():
        raise UserError(f"{destination} exists already, and was left as it is: name another place for the export.")
    if not destination.parent.is_dir():
        raise UserError(f"The folder {destination.parent} does not exist: make it, or name another place for the export.")
    with reading(path) as connection:
        if campaign is not None:
            known = [row[0] for row in connection.execute("SELECT campaign_id FROM campaign").fetchall()]
            if campaign not in known:
                raise nearest(campaign, known, "campaign")
        partial = destination.with_name(f".{destination.name}.partial")
        _remove(partial)
        try:
            (_write_json if format_ == "json" else _write_folder)(connection, partial, format_, campaign)
            partial.rename(destination)
        except OSError as error:
            free = shutil.disk_usage(destination.parent).free
            raise UserError(f"{destination} could not be written ({error.strerror}; {free} bytes free).") from error
        finally:
            _remove(partial)
    return destination


def import_(path: Path, source: Path) -> Imported:
    """Add what ``export`` wrote (Parquet or JSON, of this schema or an older one) to a store, which is made if it is missing.

    All or nothing; rows that the store has are left alone. UserError when the source is not what ``export`` writes.
    """
    source = Path(source)
    version, load = _source(source)
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{source} has schema {version}, newer than this program's {SCHEMA_VERSION}: pip install -U ipfs_accelerate_py"
        )
    with duckdb.connect() as scratch:
        # The rows are checked by the tables of the schema that wrote them, and are then brought up to date like any store.
        try:
            migrate(scratch, version=version)
            for table in _TABLES:
                if version >= _SINCE.get(table, 1):
                    load(scratch, table)
            migrate(scratch)
            if scratch.execute(f"SELECT count(*) FROM launch JOIN campaign USING (campaign_id) WHERE {MISMARKED}").fetchall()[
                0
            ][0]:
                raise ValueError("the provenance of a launch is not that of its campaign, or of its own facts")
        except (duckdb.Error, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split("\n\nLINE ")[0].split())
            raise UserError(f"{source} is not what 'export' writes, and nothing was imported: {reason}") from error
        rows = {table: scratch.table(table).to_arrow_table() for table in _TABLES}
    with connect(Store.create_or_open(path).path, read_only=False, patience_s=10) as connection:
        added: dict[str, int] = {}
        connection.execute("BEGIN")
        for table in _TABLES:
            connection.register("incoming", rows[table])
            kept = "SEMI JOIN launch USING (launch_id)" if table == "accuracy" else ""  # not of a launch known by another id
            result = connection.execute(f"INSERT INTO {table} BY NAME FROM incoming {kept} ON CONFLICT DO NOTHING")
            added[table] = result.fetchall()[0][0]
        connection.execute("COMMIT")
    return Imported(rows["launch"].num_rows, added["launch"])


def _write_folder(connection: duckdb.DuckDBPyConnection, folder: Path, format_: str, campaign: str | None) -> None:
    folder.mkdir()
    sources = {table: _select(table, campaign) for table in _TABLES}
    if format_ == "csv":
        sources["launch_summary"] = "FROM launch_summary" + (f" WHERE campaign_id = {_quoted(campaign)}" if campaign else "")
    for name, sql in sources.items():
        connection.execute(f"COPY ({sql}) TO {_quoted(str(folder / f'{name}.{format_}'))} (FORMAT {format_})")
    described = {"schema_version": SCHEMA_VERSION, "format": format_, "provenance": _provenance(connection, campaign)}
    (folder / "manifest.json").write_text(json.dumps(described))


def _write_json(connection: duckdb.DuckDBPyConnection, file: Path, format_: str, campaign: str | None) -> None:
    tables = {}
    for table in _TABLES:
        result = connection.execute(_select(table, campaign))
        columns = [(column[0], str(column[1])) for column in result.description or ()]
        tables[table] = [
            {name: _to_json(value, type_) for (name, type_), value in zip(columns, row, strict=True)}
            for row in result.fetchall()
        ]
    described = {"schema_version": SCHEMA_VERSION, "provenance": _provenance(connection, campaign), "tables": tables}
    file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def _provenance(connection: duckdb.DuckDBPyConnection, campaign: str | None) -> dict[str, int]:
    """Number of launches by provenance."""
    rows = f"SELECT provenance, count(*) FROM ({_select('launch', campaign)}) GROUP BY ALL ORDER BY ALL"
    return dict(connection.execute(rows).fetchall())


def _to_json(value: Any, type_: str) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.loads(value) if type_ == "JSON" and value is not None else storable(value)


def _select(table: str, campaign: str | None) -> str:
    rows = f"FROM {table}" + (f" WHERE {_TABLES[table]}".replace("$campaign", _quoted(campaign)) if campaign else "")
    if table in _MARKED:
        return f"SELECT marked.*, launch.provenance FROM ({rows}) AS marked JOIN launch USING (launch_id)"
    return rows


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _source(source: Path) -> tuple[int, Callable[[duckdb.DuckDBPyConnection, str], None]]:
    """The schema version of an export, and how to put one of its tables into a database of that version."""
    described = source / "manifest.json" if source.is_dir() else source
    if not described.exists():
        raise UserError(f"{source} is not what 'export' writes: {described} is missing.")
    try:
        content = json.loads(described.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"schema_version is {version!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not what 'export' writes: {described} cannot be read ({error}).") from error
    if source.is_file():
        return version, lambda scratch, table: _load_json(scratch, table, content["tables"][table])
    if content.get("format") != "parquet":
        raise UserError(f"{source} is CSV, which loses types: import an export made with --format parquet or json.")
    return version, lambda scratch, table: _load_parquet(scratch, table, source / f"{table}.parquet")


def _load_parquet(scratch: duckdb.DuckDBPyConnection, table: str, file: Path) -> None:
    columns = [row[0] for row in scratch.execute("DESCRIBE FROM read_parquet(?)", [str(file)]).fetchall()]
    own = ", ".join(_check_columns(scratch, table, columns))
    scratch.execute(f"INSERT INTO {table} BY NAME SELECT {own} FROM read_parquet(?)", [str(file)])


def _load_json(scratch: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    types = dict(scratch.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall())
    for row in rows:
        _check_columns(scratch, table, row)
        values = [canonical_json(row[name]) if type_ == "JSON" else row[name] for name, type_ in types.items()]
        scratch.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(types))})", values)


def _check_columns(scratch: duckdb.DuckDBPyConnection, table: str, columns: Iterable[str]) -> list[str]:
    """The table's own columns, if those are the ones that are there."""
    own = [row[0] for row in scratch.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall()]
    given = set(columns) - ({"provenance"} if table in _MARKED else set())  # the mark that an export adds
    if wrong := sorted(set(own) ^ given):
        raise ValueError(f"table {table} has other columns than the schema says: {', '.join(wrong)}")
    return own


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
