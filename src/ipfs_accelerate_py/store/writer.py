"""The one writer. It opens the file briefly for each ingest, so that readers between ingests are not kept out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ..errors import UserError
from ..measure.record import uuid7
from ..spec import Target, Workload, canonical_json
from .connection import StoreBusyError, connect
from .lock import LockedError, exclusive
from .migration import SCHEMA_VERSION, migrate, schema_version
from .rows import storable
from .spool import read_spooled

_WRITE_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Ingested:
    """What an ingest did: launches ``added``, and ``known`` ones that the store had already; damaged files ``set_aside`` under
    another name, with the reason; and ``waiting`` files still in the spool because a reader had the store open."""

    added: int = 0
    known: int = 0
    set_aside: tuple[tuple[Path, str], ...] = ()
    waiting: int = 0


@dataclass(frozen=True)
class Resumable:
    """An unfinished campaign; ``done`` has (spec hash, launch index) of its launches in the store."""

    id: str
    done: set[tuple[str, int]]


class Store:
    """A store on disk. No connection is kept open between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool_folder = path.with_name(path.name + ".spool")
        self._lock_path = path.with_name(path.name + ".lock")

    @classmethod
    def create_or_open(cls, path: Path | str) -> Store:
        """The store at ``path``, made if nothing is there, with its folder (not the folder's own one, which may be a misspelling).

        UserError when what is there is no store, or cannot be written.
        """
        path = Path(path)
        store = cls(path)
        if path.parent.parent.is_dir() and os.access(path.parent.parent, os.W_OK):
            path.parent.mkdir(exist_ok=True)
        if not path.parent.is_dir():
            raise UserError(f"The folder {path.parent} does not exist: make it, or name another store with --store.")
        if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
            raise UserError(f"{path} cannot be written (read-only, or no permission): name another store with --store.")
        if not path.exists():
            store._create()
        with connect(path, read_only=True, patience_s=_WRITE_PATIENCE_S) as connection:
            version = schema_version(connection, path)
        if version < SCHEMA_VERSION:
            with store._writing() as connection:
                migrate(connection)
        return store

    def _create(self) -> None:
        """Make the file under another name and rename it when it is whole: a kill leaves a store or none."""
        partial = self.path.with_name(self.path.name + ".partial")
        with self._exclusive(_WRITE_PATIENCE_S):
            if self.path.exists():  # another process was quicker
                return
            for leftover in (partial, partial.with_name(partial.name + ".wal")):
                leftover.unlink(missing_ok=True)
            duckdb.connect(str(partial)).close()
            with connect(partial, read_only=False) as connection:
                migrate(connection)
            partial.rename(self.path)

    @contextmanager
    def campaign_lock(self) -> Iterator[None]:
        """One campaign at a time. A lock whose holder was killed is free."""
        with self._exclusive(0.5):
            for leftover in self.spool_folder.glob("*.partial"):  # of launches that were killed while they spooled
                leftover.unlink(missing_ok=True)
            yield

    @contextmanager
    def _exclusive(self, patience_s: float) -> Iterator[None]:
        try:
            with exclusive(self._lock_path, patience_s):
                yield
        except LockedError as error:
            holder = f"process {error.pid}" if error.pid else "another process"
            raise UserError(
                f"A campaign is already running on the store {self.path} ({holder}): wait for it, or name another store with --store."
            ) from None

    def ingest(self, patience_s: float = 2.0) -> Ingested:
        """Move all spooled launches into the database; each file is deleted once its row is committed.

        Any number of times and from any number of processes: a launch that is there already is left alone. While a reader keeps
        the database open, the files stay in the spool for the next time (``waiting``). UserError when the disk is full.
        """
        try:
            return self._ingest(patience_s)
        except StoreBusyError:
            return Ingested(waiting=len(self._spooled()))

    def begin_campaign(self, plan: Mapping[str, Any], *, request_hash: str, command: str, seed: int) -> str:
        """Store a campaign and return its id, a UUIDv7. ``plan`` is JSON; its key ``launches`` is the number planned."""
        campaign_id = uuid7()
        row = [campaign_id, _now(), request_hash, canonical_json(storable(plan)), storable(command), seed]
        with self._writing() as connection:
            connection.execute("INSERT INTO campaign VALUES (?, ?, ?, ?, ?, ?)", row)
        return campaign_id

    def finish_campaign(self, campaign_id: str) -> None:
        """Ingest what is left and mark the campaign as finished. StoreBusyError when a reader keeps the database open."""
        self._ingest(_WRITE_PATIENCE_S)
        with self._writing() as connection:
            connection.execute("INSERT INTO campaign_end VALUES (?, ?) ON CONFLICT DO NOTHING", [campaign_id, _now()])

    def resumable_campaign(self, request_hash: str) -> Resumable | None:
        """The latest campaign of this request that was begun and not finished, spooled launches included."""
        self._ingest(_WRITE_PATIENCE_S)
        with connect(self.path, read_only=True, patience_s=_WRITE_PATIENCE_S) as connection:
            found = connection.execute(
                "SELECT campaign_id FROM campaign ANTI JOIN campaign_end USING (campaign_id) "
                "WHERE request_hash = ? ORDER BY campaign_id DESC LIMIT 1",
                [request_hash],
            ).fetchall()
            if not found:
                return None
            campaign_id = found[0][0]
            done = connection.execute(
                "SELECT spec_hash, launch_index FROM launch WHERE campaign_id = ?", [campaign_id]
            ).fetchall()
        return Resumable(campaign_id, set(done))

    @contextmanager
    def _writing(self, patience_s: float = _WRITE_PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
        with connect(self.path, read_only=False, patience_s=patience_s) as connection:
            yield connection

    def _spooled(self) -> list[Path]:
        return sorted(self.spool_folder.glob("*.parquet"))

    def _ingest(self, patience_s: float) -> Ingested:
        launches: dict[Path, pa.Table] = {}
        set_aside: list[tuple[Path, str]] = []
        for path in self._spooled():
            try:
                launches[path] = read_spooled(path)
            except FileNotFoundError:
                continue  # another process has just ingested it
            except ValueError as error:
                set_aside.append(_set_aside(path, str(error)))
        added = 0
        if launches:
            with self._writing(patience_s) as connection:
                try:
                    added = _insert(connection, list(launches.values()))
                except (duckdb.ConstraintException, duckdb.ConversionException):
                    connection.execute("ROLLBACK")
                    added = self._insert_one_by_one(connection, launches, set_aside)
            for path in launches:
                path.unlink(missing_ok=True)
        return Ingested(added, len(launches) - added, tuple(set_aside))

    def _insert_one_by_one(
        self, connection: duckdb.DuckDBPyConnection, launches: dict[Path, pa.Table], set_aside: list[tuple[Path, str]]
    ) -> int:
        """So that a launch which the tables refuse does not keep out the others. It is taken from ``launches``."""
        added = 0
        for path, table in list(launches.items()):
            try:
                added += _insert(connection, [table])
            except (duckdb.ConstraintException, duckdb.ConversionException) as error:
                connection.execute("ROLLBACK")
                del launches[path]
                set_aside.append(_set_aside(path, f"the store refuses it ({str(error).splitlines()[0]})"))
        return added


def _insert(connection: duckdb.DuckDBPyConnection, launches: Sequence[pa.Table]) -> int:
    """Add what is not there yet, in one transaction; the number of launches added."""
    connection.register("spooled", pa.concat_tables(launches))
    connection.execute("BEGIN")
    for statement in _PARENTS:
        connection.execute(statement)
    added = connection.execute(_LAUNCHES).fetchall()[0][0]
    connection.execute(_ACCURACIES)
    if connection.execute(f"SELECT count(*) FROM spooled JOIN campaign USING (campaign_id) WHERE {MISMARKED}").fetchall()[0][0]:
        raise duckdb.ConstraintException("its provenance is not that of its campaign, or of its own facts")
    connection.execute("COMMIT")
    connection.unregister("spooled")
    return added


def _flattened(part: str, dataclass: type) -> str:
    columns = ", ".join(f"{part}::JSON ->> '{field.name}' AS {field.name}" for field in fields(dataclass))
    return f"INSERT INTO {part} BY NAME SELECT DISTINCT {part}_hash, {columns} FROM spooled ON CONFLICT DO NOTHING"


_PARENTS = (
    "INSERT INTO machine SELECT DISTINCT machine_hash, machine FROM spooled ON CONFLICT DO NOTHING",
    "INSERT INTO environment SELECT DISTINCT environment_hash, environment FROM spooled ON CONFLICT DO NOTHING",
    _flattened("workload", Workload),
    _flattened("target", Target),
    "INSERT INTO spec SELECT DISTINCT spec_hash, workload_hash, target_hash FROM spooled ON CONFLICT DO NOTHING",
)
# A launch joined with its campaign that says another provenance than the campaign asked for, or than its own session told.
MISMARKED = """
    provenance <> CASE plan ->> '$.request.simulate' WHEN 'true' THEN 'simulated' WHEN 'false' THEN 'measured' ELSE provenance END
    OR (provenance = 'measured' AND (facts::JSON ->> '$.simulated') IS NOT NULL)
"""
_LAUNCHES = """
    INSERT INTO launch BY NAME
    SELECT * EXCLUDE (accuracy, workload_hash, target_hash, workload, target, machine, environment) FROM spooled
    ON CONFLICT DO NOTHING
"""
_ACCURACIES = """
    INSERT INTO accuracy
    SELECT launch_id, accuracy.cosine, accuracy.relative_error, accuracy.top1_agreement, accuracy.passed, accuracy.rule
    FROM spooled SEMI JOIN launch USING (launch_id)
    WHERE accuracy IS NOT NULL
    ON CONFLICT DO NOTHING
"""


def _set_aside(path: Path, reason: str) -> tuple[Path, str]:
    bad = path.with_name(f"{path.name}.{time.time_ns()}.bad")
    path.rename(bad)
    return bad, reason


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
