"""The dashboard as a server on this machine's loopback address."""

from __future__ import annotations

import errno
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ...errors import UserError
from .access import Access
from .api import application
from .filters import Filters
from .snapshot import Snapshots

ADDRESS = "127.0.0.1"
STOP_TIMEOUT_S = 5.0


def _listen(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} makes no sense: give a number from 1 to 65535, or 0 for any free one.")
    try:
        return socket.create_server((ADDRESS, port), backlog=64)
    except PermissionError as error:
        raise UserError(f"Port {port} needs more rights than this account has: name another one with --port.") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UserError(f"Port {port} is in use: name another one with --port, or 0 for any free one.") from error


def _server(snapshots: Snapshots, listening: socket.socket, access: Access | None) -> tuple[uvicorn.Server, str]:
    port = listening.getsockname()[1]
    hosts = frozenset({f"{ADDRESS}:{port}", f"localhost:{port}"})
    made = application(snapshots, hosts, access)
    made.state.answers.view("matrix", Filters())  # what the page asks first; also says now what is wrong with the store
    config = uvicorn.Config(
        made, log_config=None, access_log=False, lifespan="off", loop="asyncio", ws="none", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config), f"http://{ADDRESS}:{port}/"


def serve(store: Path, port: int, *, open_browser: bool, token: bool = True, say: Callable[[str], object] = print) -> None:
    """Serve until interrupted; without ``token`` to everybody on this machine. UserError when the store cannot be read or the port is in
    use."""
    access = Access() if token else None
    with _listen(port) as listening, Snapshots(store) as snapshots:
        server, url = _server(snapshots, listening, access)
        say(f"Dashboard of {store}: {url}{f'?token={access.token}' if access else ''} (Ctrl-C ends it)")
        if open_browser:
            opened = f"{url}?token={access.ticket()}" if access else url
            threading.Timer(0.5, webbrowser.open, [opened]).start()
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            return


@contextmanager
def serving(store: Path, port: int = 0, *, access: Access | None = None) -> Iterator[str]:
    """The dashboard's address while the block runs; the server is in a thread of its own (notebooks, tests, benchmarks). Everybody on this
    machine may read it, unless ``access`` is given, whose ``token`` is then asked for."""
    with _listen(port) as listening, Snapshots(store) as snapshots:
        server, url = _server(snapshots, listening, access)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="dashboard", daemon=True)
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(STOP_TIMEOUT_S)
