"""The schema, as numbered SQL files that are applied in order, each in a transaction of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import duckdb

from ..errors import UserError


def _migrations() -> dict[int, tuple[str, str]]:
    """(name, SQL) by version."""
    files = sorted((file.name, file) for file in (resources.files(__package__) / "migrations").iterdir())
    return {int(name[:4]): (name, file.read_text(encoding="utf-8")) for name, file in files if name.endswith(".sql")}


MIGRATIONS = _migrations()
SCHEMA_VERSION = max(MIGRATIONS)


def migrate(connection: duckdb.DuckDBPyConnection, *, version: int = SCHEMA_VERSION) -> None:
    """Bring the database from whatever version it has, none at all included, up to ``version``."""
    there = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_migration'").fetchall()[0][0]
    current = connection.execute("SELECT max(version) FROM schema_migration").fetchall()[0][0] if there else 0
    for number in range(current + 1, version + 1):
        name, sql = MIGRATIONS[number]
        connection.execute("BEGIN")
        connection.execute(sql)
        now = datetime.now(UTC).replace(tzinfo=None)
        connection.execute("INSERT INTO schema_migration VALUES (?, ?, ?)", [number, name, now])
        connection.execute("COMMIT")


def schema_version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The version of a store. UserError when the database is no store, or one of a newer program."""
    try:
        version = connection.execute("SELECT max(version) FROM schema_migration").fetchall()[0][0]
    except duckdb.CatalogException as error:
        raise UserError(
            f"{path} is a DuckDB file but not a store of this program, and was left as it is: name another store with --store."
        ) from error
    if version > SCHEMA_VERSION:
        raise UserError(
            f"The store {path} has schema {version}, newer than this program's {SCHEMA_VERSION}; it was left as it is: "
            "pip install -U ipfs_accelerate_py"
        )
    return version
