"""Servers to test, around whatever service: run in a thread until the end of a block."""

from __future__ import annotations

import contextlib
import threading
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
