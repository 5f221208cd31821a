"""Two files that Python and the page both have open, so that large tensors need not go through the browser's network stack.

The page opens them in its origin private file system (https://fs.spec.whatwg.org), which a browser keeps in its profile, and writes a
random mark into each. Python looks in the profile of the browser that it started for files that hold nothing but the marks, opens
them, and removes their names: no other user's program can open them, and none by name, and what was in them is gone with the two
processes. Which bytes belong to which message goes over the WebSocket. Nothing is assumed of where a browser keeps such files: one
that cannot be found is not used.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .protocol import SHARED_LIMIT_BYTES, Facts, Message, ShareFiles, Stored, TensorHeader, UseFiles, tensor


class SharedFiles:
    """``to_page`` and ``from_page`` are open file descriptors, which this closes. Safe to use from several threads."""

    def __init__(self, to_page: int, from_page: int) -> None:
        self._to_page, self._from_page = to_page, from_page
        self._writing, self._reading = threading.Lock(), threading.Lock()  # so that nothing closes a file that is in use
        self._closed = False
        self._held: dict[int, int] = {}  # bytes by where they begin
        self.refused = ""  # why nothing can be written any more

    def store(self, tensors: Mapping[str, np.ndarray], headers: Sequence[TensorHeader], size: int) -> Stored | None:
        """Write the tensors where nothing else is held, until ``release``; None where they must go another way."""
        with self._writing:
            at = _free(self._held, size)
            if self._closed or self.refused or at + size > SHARED_LIMIT_BYTES:
                return None
            try:
                for header, array in zip(headers, tensors.values(), strict=True):
                    if array.size:
                        _write(self._to_page, np.ascontiguousarray(array), at + header.offset)
            except OSError as full:
                self.refused = f"the shared file cannot be written: {full}"
                return None
            self._held[at] = size
        return Stored(at, tuple(headers))

    def release(self, stored: Stored) -> None:
        """The page has read them."""
        with self._writing:
            self._held.pop(stored.at, None)

    def load(self, stored: Stored) -> dict[str, np.ndarray]:
        """The tensors that the page wrote, copied. Raises ValueError where they are not there."""
        buffer = np.empty(stored.bytes, np.uint8)
        with self._reading:
            done = 0
            while done < len(buffer):
                read = 0 if self._closed else os.preadv(self._from_page, [buffer.data[done:]], stored.at + done)
                if read == 0:
                    raise ValueError(f"of {len(buffer):,} bytes that the page stored {done:,} are there")
                done += read
        return {header.name: tensor(header, buffer.data) for header in stored.headers}

    def close(self) -> None:
        """Safe to call again."""
        with self._writing, self._reading:
            if not self._closed:
                os.close(self._to_page)
                os.close(self._from_page)
            self._closed = True


def share_files(ask: Callable[[Message], Message], profile: Path | None) -> SharedFiles | str:
    """The files that the page, which ``ask`` asks, shares with this process, or why there are none. ``profile`` is its browser's.

    The page waits for UseFiles before it stores anything in them: that is for the caller to send, who can read them then.
    """
    if profile is None:
        return "the browser was not started here"
    if not hasattr(os, "preadv"):
        return "this system reads no file at a place (preadv)"
    marks = [secrets.token_hex(32) for _ in range(2)]
    answer = ask(ShareFiles(to_page=marks[0], from_page=marks[1]))
    reason = answer.facts["reason"] if isinstance(answer, Facts) else f"the page answered {type(answer).__name__}"
    if reason:
        return str(reason)
    why = "the browser keeps the page's files in no file of its profile"
    try:
        if found := find_marked(profile, marks):
            return SharedFiles(*found)
    except OSError as error:
        why = f"the page's files cannot be taken: {error}"
    ask(UseFiles(found=False))
    return why


def find_marked(profile: Path, marks: Sequence[str]) -> list[int] | None:
    """Descriptors of the files below ``profile`` that hold nothing but these marks, in their order; their names are removed. None where
    one is not there. Raises OSError where one cannot be read or its name cannot be removed."""
    wanted = {mark.encode(): None for mark in marks}
    sizes = {len(mark) for mark in wanted}
    found: dict[bytes, tuple[Path, int]] = {}
    with ExitStack() as opened:
        for folder, _, names in os.walk(profile):
            for name in names:
                path = Path(folder, name)
                with ExitStack() as this:
                    descriptor = _open_sized(path, sizes)
                    if descriptor is None:
                        continue
                    this.callback(os.close, descriptor)
                    content = os.pread(descriptor, max(sizes), 0)
                    if content in wanted and content not in found:
                        found[content] = path, descriptor
                        opened.push(this.pop_all())
        for path, _ in found.values():
            path.unlink(missing_ok=True)
        if len(found) < len(wanted):
            return None
        opened.pop_all()  # they stay open
    return [found[mark][1] for mark in wanted]


def _open_sized(path: Path, sizes: set[int]) -> int | None:
    """Opened if it is a plain file of one of these sizes; a browser's own files come and go meanwhile."""
    try:
        if path.lstat().st_size not in sizes or not path.is_file():
            return None
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None


def _free(held: Mapping[int, int], size: int) -> int:
    """The first place where ``size`` bytes overlap nothing that is held."""
    at = 0
    for begin, taken in sorted(held.items()):
        if at + size <= begin:
            break
        at = max(at, begin + taken)
    return at


def _write(descriptor: int, array: np.ndarray, at: int) -> None:
    left = array.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written
