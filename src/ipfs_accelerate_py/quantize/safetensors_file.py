"""Safetensors files in NumPy, one tensor at a time (https://huggingface.co/docs/safetensors: u64 header length, JSON header, data).

The library's NumPy side does not know bfloat16 and writes a file only from all its tensors at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
STORED: dict[np.dtype, str] = {np.dtype("<u4"): "U32", np.dtype("<f2"): "F16", np.dtype("<f4"): "F32"}
FILLING = ".filling"


@dataclass(frozen=True)
class Entry:
    """Where a tensor is. ``dtype`` is safetensors' name of it; ``start`` counts from the beginning of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def entries(file: Path) -> dict[str, Entry]:
    """The tensors of a file by name. The file must be whole (``models.loading.weight_files`` checks that)."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[name] = Entry(file, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
    return found


def read_float(name: str, entry: Entry) -> np.ndarray:
    """float32 of the tensor's shape. UserError for a tensor that holds no floating-point numbers."""
    if entry.dtype not in FLOATS:
        raise UserError(f"Tensor '{name}' in {entry.file.name} is {entry.dtype}, not floating point: it cannot be quantised.")
    raw = _read(entry, np.dtype(FLOATS[entry.dtype]))
    if entry.dtype == "BF16":
        raw = (raw.astype("<u4") << 16).view("<f4")
    return raw.astype(np.float32).reshape(entry.shape)


def read_stored(entry: Entry) -> np.ndarray:
    """A tensor of one of the types that ``write`` writes, as it is."""
    dtype = next(dtype for dtype, name in STORED.items() if name == entry.dtype)
    return _read(entry, dtype).reshape(entry.shape)


def _read(entry: Entry, dtype: np.dtype) -> np.ndarray:
    return np.fromfile(entry.file, dtype=dtype, count=math.prod(entry.shape), offset=entry.start)


@contextmanager
def _whole_or_not(file: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``file`` at the end. UserError on a full disk, and what was begun is removed."""
    temporary = file.with_name(file.name + ".partial")
    try:
        yield temporary
        os.replace(temporary, file)
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"The disk is full: '{file}' could not be written; free some space and run the same command again, which goes on there."
        ) from failed


def write(file: Path, tensors: Iterable[tuple[str, np.ndarray]], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Write tensors (uint32, float16, float32) and give the file's ``bytes`` and ``sha256``. Atomic: the file is whole or not there.

    Every tensor starts at a multiple of 8 bytes of the file, so that a browser can view it in place.
    """
    listed = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0

    def place(name: str, dtype: str, shape: list[int], size: int) -> None:
        nonlocal position
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size

    for name, array in listed:
        place(name, STORED[array.dtype], list(array.shape), array.nbytes)
        if padding := -array.nbytes % 8:  # the format allows no gap between tensors, so the filling is one
            place(f"{name}{FILLING}", "U8", [padding], padding)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with _whole_or_not(file) as temporary, temporary.open("wb") as stream:
        for piece in (struct.pack("<Q", len(encoded)), encoded):
            stream.write(piece)
            digest.update(piece)
        for _, array in listed:
            filling = b"\0" * (-array.nbytes % 8)
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            stream.write(data)
            digest.update(data)
            stream.write(filling)
            digest.update(filling)
        stream.flush()
        os.fsync(stream.fileno())
        total = stream.tell()
    return {"bytes": total, "sha256": digest.hexdigest()}


def write_json(file: Path, content: Any) -> None:
    """Atomic: the file is whole or as before."""
    with _whole_or_not(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
