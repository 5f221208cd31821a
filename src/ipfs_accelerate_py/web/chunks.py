"""Files cut into chunks with a digest each, so that the page can fetch ranges at once and check every one as it comes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ..errors import LaunchError
from ..models.prepared import Graph
from ..paths import cache_folder
from .protocol import ChunkSpec

CHUNK_BYTES = 4 * 2**20  # 168 ms of a 200 Mbit/s link: many round trips long, and little to fetch again


def chunk_spec(folder: Path, graphs: Mapping[str, Graph], chunk_bytes: int = CHUNK_BYTES) -> ChunkSpec:
    """Chunks of the graphs' files. Raises LaunchError (load_failed) where a file is missing or not the one of the manifest."""
    sizes, digests = {}, {}
    for graph in graphs.values():
        for name, sha256 in zip(graph.files, graph.sha256, strict=True):
            path = folder / name
            if not path.is_file():
                raise LaunchError("load_failed", f"{name} could not be read: there is no such file in {folder}.")
            sizes[name] = path.stat().st_size
            digests[name] = _digests(path, sha256, chunk_bytes, cache_folder() / "chunks")
    return ChunkSpec(chunk_bytes, sizes, digests)


@lru_cache(maxsize=256)
def _digests(path: Path, sha256: str, chunk_bytes: int, cache: Path) -> tuple[str, ...]:
    """SHA-256 of each chunk of the file whose own is ``sha256``; remembered in ``cache``, as it takes seconds for gigabytes."""
    known = cache / f"{sha256}-{chunk_bytes}.json"
    if known.is_file():
        return tuple(json.loads(known.read_text()))
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            whole.update(chunk)
            parts.append(hashlib.sha256(chunk).hexdigest())
    if whole.hexdigest() != sha256:
        found = whole.hexdigest()
        raise LaunchError("load_failed", f"{path.name} is not the file of the manifest: its SHA-256 is {found}, not {sha256}.")
    cache.mkdir(parents=True, exist_ok=True)
    written = cache / f"{known.name}.{os.getpid()}"
    written.write_text(json.dumps(parts))
    written.replace(known)
    return tuple(parts)
