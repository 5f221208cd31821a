"""Browser profiles that are kept between starts, so that compiled shaders and chunks of a model are still there at the next.

CACHE/profiles/BROWSER-VERSION-KEY/
    profile/       the browser's own folder
    port           the port that the page is served from: a browser keeps what it stores by origin, and the port is part of it

One for each browser version and model. The oldest ones are removed when all together exceed LIMIT_BYTES.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, nearest
from ..models.prepared import Graph
from ..paths import cache_folder
from ..store.lock import LockedError, exclusive
from .browsers import Browser

LIMIT_BYTES = 8 * 2**30  # some models of a few gigabytes, or many small ones


@dataclass(frozen=True)
class KeptProfile:
    """``port`` is 0 until the first start has chosen one; ``fresh`` says that nothing was there before."""

    name: str
    folder: Path
    port: int
    fresh: bool

    @property
    def profile(self) -> Path:
        return self.folder / "profile"

    def remember_port(self, port: int) -> None:
        (self.folder / "port").write_text(str(port))


@dataclass(frozen=True)
class Entry:
    """``used`` is the time of the last start, seconds since the epoch; ``in_use`` while a browser runs in it."""

    name: str
    bytes: int
    used: float
    in_use: bool


def root() -> Path:
    return cache_folder() / "profiles"


@contextmanager
def kept_profile(browser: Browser, model: str, limit_bytes: int = LIMIT_BYTES) -> Iterator[KeptProfile]:
    """The profile of this browser version for ``model`` (any text that tells models apart), locked for this process.

    UserError where another process uses it. Afterwards the least recently used others are removed until ``limit_bytes`` hold.
    """
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in (browser.key, browser.version, model))[:120]
    folder = root() / name
    (folder / "profile").mkdir(parents=True, exist_ok=True)
    port = folder / "port"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder / "lock", 0))
        except LockedError as locked:
            raise UserError(
                f"The kept profile {name} is in use by process {locked.pid}: wait for it, or run without keeping one."
            ) from locked
        os.utime(folder)
        yield KeptProfile(name, folder, int(port.read_text()) if port.is_file() else 0, not port.is_file())
        os.utime(folder)
        trim(limit_bytes, spare=name)


def model_key(graphs: Mapping[str, Graph]) -> str:
    """Tells the model of these graphs apart, by what its files hold."""
    return "-".join(sorted(graph.sha256[0][:12] for graph in graphs.values()))


def entries() -> list[Entry]:
    """Kept profiles, the latest used first."""
    found = (
        [_entry(folder) for folder in root().iterdir() if folder.is_dir() and folder.name[0] != "."] if root().is_dir() else []
    )
    return sorted(found, key=lambda entry: -entry.used)


def trim(limit_bytes: int, spare: str = "") -> list[str]:
    """Remove the least recently used profiles that nobody uses until all together have at most ``limit_bytes``; their names."""
    kept = entries()
    total = sum(entry.bytes for entry in kept)
    removed = []
    for entry in reversed(kept):
        if total <= limit_bytes:
            break
        if entry.name == spare or not _remove(root() / entry.name):
            continue
        total -= entry.bytes
        removed.append(entry.name)
    return removed


def clear(name: str | None = None) -> list[str]:
    """Remove one profile, or all that are not in use; their names. UserError for a name that is not there or is in use."""
    names = [entry.name for entry in entries()]
    if name is None:
        return [each for each in names if _remove(root() / each)]
    if name not in names:
        raise nearest(name, names, "kept profile") if names else UserError(f"There is no kept profile '{name}': none is kept.")
    if not _remove(root() / name):
        raise UserError(f"The kept profile {name} is in use: stop the browser that runs in it first.")
    return [name]


def _entry(folder: Path) -> Entry:
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return Entry(folder.name, size, folder.stat().st_mtime, _in_use(folder))


def _in_use(folder: Path) -> bool:
    try:
        with exclusive(folder / "lock", 0):
            return False
    except LockedError:
        return True


def _remove(folder: Path) -> bool:
    """Whether it could be: a profile in use stays."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with exclusive(folder / "lock", 0):
            folder.rename(doomed)
    except LockedError:
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return True
