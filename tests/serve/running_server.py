"""A server that runs while a test needs it, and waiting with a limit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from ipfs_accelerate_py.serve.server import Server
from ipfs_accelerate_py.serve.service import Service

MakeService = Callable[..., Service]


@contextlib.contextmanager
def running(service: Service, token: str | None = None, host: str = "127.0.0.1") -> Iterator[Server]:
    """A server that answers until the end of the block."""
    server, ready = Server(service, host, token=token), threading.Event()
    thread = threading.Thread(target=server.run, args=[ready.set])
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)
        service.close()
        assert not thread.is_alive()


def until(condition: Callable[[], object], limit_s: float = 120) -> None:
    """Returns once it holds; fails where that takes too long, rather than waiting for ever."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)
