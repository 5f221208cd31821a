"""The spool: one Parquet file per launch, whole or not there. Written by the launch's own process, which needs no database."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..measure.record import LaunchRecord
from .rows import SPOOL_SCHEMA, to_row


def spool_path(folder: Path, campaign_id: str, spec_hash: str, launch_index: int) -> Path:
    """Where a launch is spooled. If the file is there, the launch's record is complete."""
    return folder / f"{campaign_id}.{spec_hash}.{launch_index}.parquet"


def spool(record: LaunchRecord, folder: Path) -> Path:
    """Write the record to the folder, which is made if it is missing, and return the file.

    It is flushed to the disk under another name and renamed last, so a reader sees all of it or nothing, also after a power cut.
    UserError when the disk is full or the folder cannot be written; a file that was there is then unchanged.
    """
    content = io.BytesIO()
    table = pa.Table.from_pylist([to_row(record)], schema=SPOOL_SCHEMA)
    pq.write_table(table, content, write_page_checksum=True)
    path = spool_path(folder, record.campaign_id, record.spec.hash, record.launch_index)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        folder.mkdir(exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise _explained(error, path) from error
    return path


def read_spooled(path: Path) -> pa.Table:
    """One row of SPOOL_SCHEMA. ValueError when the file is damaged or is no spooled launch; FileNotFoundError when it is gone."""
    content = path.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is damaged ({str(error).splitlines()[0]})") from error
    if not table.schema.equals(SPOOL_SCHEMA) or table.num_rows != 1:
        raise ValueError("it does not have the columns of a launch")
    return table


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explained(error: OSError, path: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent if path.parent.exists() else path.parent.parent).free
        return UserError(
            f"The disk is full: {path} was not written ({free} bytes free). "
            "Free some space, then run the same command with --resume; what was stored is kept."
        )
    if error.errno == errno.ENOENT:
        return UserError(f"The folder {path.parent.parent} does not exist: make it, or name another store with --store.")
    return UserError(f"{path} could not be written ({error.strerror}): check the folder's permissions, or name another store.")
