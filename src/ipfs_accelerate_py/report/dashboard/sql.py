"""The SQL console: one SELECT at a time on the snapshot, with a limit of rows and of time. It cannot write, nor read a file."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import duckdb

from ...errors import UserError
from .snapshot import Snapshot

ROWS_UP_TO = 10_000
SECONDS_UP_TO = 10.0
READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


@dataclass(frozen=True)
class Result:
    """Columns and rows; ``cut`` where there were more rows than the limit."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    cut: bool


def ask(snapshot: Snapshot, text: str, rows: int = ROWS_UP_TO, seconds: float = SECONDS_UP_TO) -> Result:
    """Run one statement. UserError, in one sentence, when it is not one reading statement, fails, or takes too long."""
    cursor = snapshot.cursor()
    try:
        statements = cursor.extract_statements(text)
        if len(statements) != 1:
            raise UserError(f"One SQL statement at a time, please: this text has {len(statements)}.")
        if statements[0].type not in READS:
            kind = statements[0].type.name
            raise UserError(f"This console only reads: {kind} is refused. Ask with SELECT, DESCRIBE, SUMMARIZE or EXPLAIN.")
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.start()
        try:
            result = cursor.execute(statements[0])
            found = result.fetchmany(rows + 1)
        except duckdb.InterruptException as error:
            raise UserError(
                f"The query was stopped after {seconds:g} seconds: ask for less, or use 'ipfs-accelerate query'."
            ) from error
        finally:
            timer.cancel()
        columns = [column[0] for column in result.description or ()]
        return Result(columns, found[:rows], len(found) > rows)
    except duckdb.PermissionException as error:
        raise UserError("This console reads the store alone: files, folders and extensions are out of its reach.") from error
    except duckdb.OutOfMemoryException as error:
        raise UserError("The query needs more than 2 GB of memory: ask for less, or use 'ipfs-accelerate query'.") from error
    except duckdb.Error as error:
        raise UserError(" ".join(str(error).split("\n\nLINE ")[0].split())) from error
    finally:
        cursor.close()
