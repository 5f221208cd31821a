"""Memory that several jobs share at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryShare:
    """``total`` bytes. A job waits until what it needs is free; one that needs more than there is runs alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, needs: int) -> Iterator[None]:
        """Holds ``needs`` bytes, at most all of them, for as long as the block runs."""
        needs = min(needs, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + needs <= self.total)
            self._taken += needs
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needs
                self._changed.notify_all()
