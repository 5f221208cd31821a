"""A copy of the store that may be read for as long as one likes, renewed when the store has changed.

A reader that holds the store's file keeps its writer out (the launches then wait in the spool). So the file is held only while it is
copied, tens of milliseconds, and every question goes to the copy: a running campaign is never blocked, however long a query takes.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from ...errors import UserError
from ...store.connection import connect, reading

Row = dict[str, Any]

# No file but the copy, no extension, no spilling to the disk, and no way to change any of that.
SANDBOX = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "max_temp_directory_size": "0KB",
    "memory_limit": "2GB",
    "lock_configuration": "true",
}


class Snapshot:
    """One state of the store, asked from any thread over one read-only connection to the copy."""

    def __init__(self, copy: Path, version: str) -> None:
        self.version = version
        self._copy = copy
        self._connection = duckdb.connect(str(copy), read_only=True, config=dict(SANDBOX))
        self._lock = threading.RLock()
        self._kept: dict[str, Any] = {}
        self._making: dict[str, threading.RLock] = {}

    def rows(self, sql: str, arguments: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """All rows of a query of this program's own, as dictionaries. UserError where the store is too large for its memory."""
        with self._lock:  # one connection, so that its temporary tables are there for all
            try:
                result = self._connection.execute(sql, arguments)
                columns = [column[0] for column in result.description or ()]
                return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
            except duckdb.OutOfMemoryException as error:
                raise UserError(
                    f"This store is too large for the dashboard, which takes {SANDBOX['memory_limit']} of memory at most: export one "
                    "campaign of it into a store of its own, or ask with 'ipfs-accelerate query'."
                ) from error

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor of its own, for a statement that may be interrupted."""
        return self._connection.cursor()

    def has(self, table: str) -> bool:
        """Whether the store has this table or view: stores differ by what has been added to them."""
        return bool(self.rows("SELECT 1 FROM information_schema.tables WHERE table_name = ?", [table]))

    def kept(self, name: str, make: Any) -> Any:
        """What ``make()`` gives, made once for this state of the store. Who asks for something else meanwhile does not wait for it."""
        with self._lock:
            making = self._making.setdefault(name, threading.RLock())
        with making:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]

    def close(self) -> None:
        self._connection.close()
        self._copy.unlink(missing_ok=True)


class Snapshots:
    """The latest snapshot of a store. Use as a context manager: the copies are deleted at the end."""

    def __init__(self, store: Path) -> None:
        self.store = Path(store)
        self._folder = tempfile.TemporaryDirectory(prefix="ipfs-accelerate-dashboard-")
        self._lock = threading.RLock()
        self._snapshots: list[Snapshot] = []  # the one before the latest may still be answering
        self._count = 0

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *_: object) -> None:
        for snapshot in self._snapshots:
            snapshot.close()
        self._folder.cleanup()

    def current(self) -> Snapshot:
        """The store as it is now. UserError when it is gone, damaged, no store, or of a newer program."""
        with self._lock:
            version = self._version()
            if not self._snapshots or self._snapshots[-1].version != version:
                self._snapshots.append(self._take(version))
                for old in self._snapshots[:-2]:
                    old.close()
                self._snapshots = self._snapshots[-2:]
            return self._snapshots[-1]

    def waiting(self) -> int:
        """Launches that lie in the spool and are not in the store yet."""
        return len(list(self.store.with_name(self.store.name + ".spool").glob("*.parquet")))

    def _version(self) -> str:
        try:
            status = self.store.stat()
        except OSError:
            with connect(self.store, read_only=True):  # says in one sentence what is wrong with the path
                pass
            raise UserError(f"The store {self.store} cannot be read: check that it is there.") from None
        return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"

    def _take(self, version: str) -> Snapshot:
        with reading(self.store):  # checks it, brings an old schema up to date, leaves no write-ahead log
            pass
        self._count += 1
        copy = Path(self._folder.name) / f"{self._count}.duckdb"
        with connect(self.store, read_only=True):  # no writer while this is open
            shutil.copyfile(self.store, copy)
            log = self.store.with_name(self.store.name + ".wal")
            if log.exists():
                shutil.copyfile(log, copy.with_name(copy.name + ".wal"))
        return Snapshot(copy, version)
