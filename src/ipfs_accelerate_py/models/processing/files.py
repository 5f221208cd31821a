"""Files that a person names."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError

LONGEST_NAME = 200  # characters of a path in a message


def read_bytes(path: str | Path, kind: str) -> bytes:
    """The content of a file of this ``kind`` (image, audio), ``~`` expanded; UserError where there is none or it cannot be read."""
    try:
        file = Path(path).expanduser()
        found = file.is_file()
    except (OSError, RuntimeError):  # a name that is too long; the home of a user that does not exist
        found = False
    if not found:
        raise UserError(f"There is no {kind} file '{str(path)[:LONGEST_NAME]}'.")
    try:
        return file.read_bytes()
    except OSError as refused:
        raise UserError(f"The {kind} file '{path}' cannot be read: {refused.strerror}.") from refused
