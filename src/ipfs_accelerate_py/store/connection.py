"""Opening the store's file: briefly, patiently while another process has it, and with DuckDB's errors as sentences."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ..errors import UserError
from .migration import SCHEMA_VERSION, migrate, schema_version


class StoreBusyError(UserError):
    """Another process has the file open."""


READ_PATIENCE_S = 5.0  # a writer has the file for about 0.1 s per launch, more on a busy disk
_BUSY = re.compile(r"Could not set lock|being used by another process|different configuration than existing connections")
_NO_DATABASE = re.compile(r"not a valid DuckDB database file|Is a directory")
_DAMAGED = re.compile(r"[Cc]orrupt|[Cc]hecksum|Could not read enough bytes|Failed to load metadata|WAL file")
_NEWER_DUCKDB = re.compile(r"database file with version number|newer (version|storage)")
_FULL = re.compile(r"No space left|not enough space|Disk quota exceeded", re.IGNORECASE)
_NOT_WRITABLE = re.compile(r"Permission denied|Read-only file system|Access is denied")
# Errors of the file. Those of a statement (syntax, types) may quote anything and are left alone.
_OF_THE_FILE = (
    duckdb.IOException,
    duckdb.ConnectionException,
    duckdb.TransactionException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.SerializationException,
)


@contextmanager
def connect(
    path: Path, *, read_only: bool, patience_s: float = READ_PATIENCE_S, config: Mapping[str, str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a store that is there, closed at the end. StoreBusyError when others have it for longer than the patience."""
    if not path.exists():
        raise UserError(f"There is no store at {path}: make one with 'ipfs-accelerate bench', or name another with --store.")
    try:
        connection = _open(path, read_only, patience_s, config or {})
        try:
            yield connection
        finally:
            connection.close()
    except duckdb.Error as error:
        if isinstance(error, _OF_THE_FILE) or type(error) is duckdb.Error:
            raise _explained(error, path) from error
        raise


@contextmanager
def reading(path: Path, config: Mapping[str, str] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to a store of this program's schema. A store of an older schema is brought up to date first."""
    path = Path(path)
    with connect(path, read_only=True) as connection:
        version = schema_version(connection, path)
    if version < SCHEMA_VERSION:
        with connect(path, read_only=False) as connection:
            migrate(connection)
    with connect(path, read_only=True, config=config) as connection:
        yield connection


def _open(path: Path, read_only: bool, patience_s: float, config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config=dict(config))
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            if not _BUSY.search(str(error)) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _explained(error: duckdb.Error, path: Path) -> Exception:
    """The sentence for an error of the file, or the error itself where there is none: it is then a defect."""
    text = str(error)
    if _BUSY.search(text):
        holder = re.search(r"PID (\d+)", text)
        by = f"process {holder[1]}" if holder else "another process"
        return StoreBusyError(f"The store {path} is in use by {by}: wait until that is done, or use another store.")
    if _FULL.search(text):
        free = shutil.disk_usage(path.parent).free
        return UserError(
            f"The disk is full: {path} could not be written ({free} bytes free). "
            "Free some space and run the command again; launches that wait in the spool are kept."
        )
    if _NO_DATABASE.search(text):
        return UserError(f"{path} is not a DuckDB file, and was left as it is: name another store with --store.")
    if _NEWER_DUCKDB.search(text):
        return UserError(f"{path} was written by a newer DuckDB than {duckdb.__version__}: pip install -U duckdb")
    if _NOT_WRITABLE.search(text):
        return UserError(
            f"{path} cannot be opened (permission denied): check its permissions, or name another store with --store."
        )
    if _DAMAGED.search(text) or isinstance(error, duckdb.SerializationException):
        reason = text.splitlines()[0]
        return UserError(
            f"The store {path} is damaged, and was left as it is ({reason}): restore a copy, or name another store."
        )
    return error
