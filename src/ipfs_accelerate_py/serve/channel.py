"""Events from the engine's thread to a coroutine, bounded: the producer is told when its reader is behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from .events import Event


class Channel:
    """Made in the event loop that reads it. ``limit`` events wait at most, and the few that end an answer.

    In the loop are called: ``on_drained``, when a reader that was behind has caught up to half of the limit, and ``on_behind``, when it
    has not ``patience_s`` after the producer stopped for it.
    """

    def __init__(self, limit: int, patience_s: float = 30.0) -> None:
        self.limit = limit
        self.patience_s = patience_s
        self.on_drained: Callable[[], None] = lambda: None
        self.on_behind: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()  # guards _events and _behind
        self._events: deque[Event] = deque()
        self._behind = False

    def put(self, event: Event) -> bool:
        """From any thread. False once the reader is behind: call ``stopped`` and produce no more until ``on_drained``."""
        with self._lock:
            self._events.append(event)
            self._behind = self._behind or len(self._events) >= self.limit
            behind = self._behind
        self._in_loop(self._ready.set)
        return not behind

    def stopped(self) -> None:
        """From the producer, once it has stopped for the reader."""
        self._in_loop(self._wait)

    async def get(self) -> Event:
        while True:
            with self._lock:
                event = self._events.popleft() if self._events else None
                if event is None:
                    self._ready.clear()
            self._drain()
            if event is not None:
                return event
            await self._ready.wait()

    def _wait(self) -> None:
        if not self._drain(stopped=True):  # it may have caught up meanwhile
            self._timer = self._loop.call_later(self.patience_s, self.on_behind)

    def _drain(self, stopped: bool = False) -> bool:
        with self._lock:
            behind = self._behind or stopped
            drained = behind and len(self._events) <= self.limit // 2
            self._behind = behind and not drained
        if drained:
            if self._timer is not None:
                self._timer.cancel()
            self.on_drained()
        return drained

    def _in_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is ending, and nobody reads
            self._loop.call_soon_threadsafe(call)
