"""The bridge: serves the page and a model's files on loopback, and talks with the page over one WebSocket.

Who may connect: only the page that Python opened. Its URL carries a one-time token, which the first WebSocket uses up; a WebSocket
without it, from another origin or for another host is refused, and so is every HTTP request for another host (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..errors import LaunchError, UnavailableError
from .protocol import Console, Failure, Frame, Message, decode, encode

STATIC = Path(__file__).parent / "static"
# One frame carries all inputs of a workload, or all outputs.
MAX_FRAME_BYTES = 2**31 - 1
STOP_TIMEOUT_S = 5
WATCH_S = 5.0  # longer than a batch of timed iterations, so that watching does not disturb them
MEDIA_TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm", ".txt": "text/plain"}


class Disconnected(Exception):
    """The page's WebSocket closed while a reply was awaited."""


class Bridge:
    """A server on a free port of 127.0.0.1 in a thread of its own; use it as a context manager.

    ``files`` are the names in ``folder`` that the page may fetch from ``model/``; nothing else of the folder is served.
    ``port`` is taken where it is free, 0 for any. ``wrap`` is put around the server's application (ASGI), see shaped_link.py.
    ``allow_eval`` lets the page's scripts make functions from text, which ONNX Runtime's WebNN provider does.
    """

    def __init__(
        self,
        folder: Path | None = None,
        files: Collection[str] = (),
        *,
        allow_eval: bool = False,
        port: int = 0,
        wrap: Callable[[Any], Any] = lambda application: application,
    ) -> None:
        if not (STATIC / "index.html").is_file():
            raise UnavailableError("The browser runtime is not built.", "Run: npm ci && npm run build in the folder browser.")
        self._files = {name: folder / name for name in files} if folder else {}
        self._script_policy = "'self' 'wasm-unsafe-eval'" + (" 'unsafe-eval'" if allow_eval else "")
        self._static = {path.name: path for path in STATIC.iterdir()}
        self._token: str | None = secrets.token_urlsafe(32)
        self._ids = itertools.count(1)
        self._pending: dict[int, concurrent.futures.Future[Frame]] = {}
        self._lock = threading.Lock()  # guards _token, _pending and _broken
        self._broken: Exception | None = None
        self._page: WebSocket | None = None
        self._connected: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._console: deque[str] = deque(maxlen=50)
        self._socket = _listen(port)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.origin = f"http://{self.host}"
        self.url = f"{self.origin}/#token={self._token}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                wrap(self._application()),
                log_config=None,
                access_log=False,
                lifespan="off",
                loop="asyncio",
                ws="websockets-sansio",
                ws_max_size=MAX_FRAME_BYTES,
                ws_ping_interval=None,  # a busy page may not answer for minutes; each request has its own limit
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="bridge", daemon=True)

    def __enter__(self) -> Bridge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    @property
    def console(self) -> list[str]:
        """The page's latest console errors and warnings."""
        return list(self._console)

    def connected(self, timeout_s: float) -> bool:
        """Wait for the page; False if it has not connected after ``timeout_s``."""
        try:
            self._connected.result(timeout_s)
        except concurrent.futures.TimeoutError:
            return False
        return True

    def request(
        self,
        message: Message,
        tensors: Mapping[str, np.ndarray] | None = None,
        *,
        timeout_s: float,
        phase: str,
        watch: Callable[[], Exception | None] = lambda: None,
    ) -> Frame:
        """Send ``message`` and wait for its reply.

        Raises LaunchError: what the page reported, or ``timeout`` after ``timeout_s`` (``phase`` is named in it); Disconnected
        when the page goes away; and what ``watch`` gives, which is asked every WATCH_S seconds.
        """
        page, loop = self._page, self._loop
        if page is None or loop is None:
            raise Disconnected("The page has not connected.")
        reply: concurrent.futures.Future[Frame] = concurrent.futures.Future()
        number = next(self._ids)
        with self._lock:
            if self._broken:
                raise self._broken
            self._pending[number] = reply
        frame = encode(replace(message, id=number), tensors)
        try:
            asyncio.run_coroutine_threadsafe(_send(page, frame), loop).add_done_callback(self._sent)
            deadline = time.monotonic() + timeout_s
            while (left_s := deadline - time.monotonic()) > 0:
                done, _ = concurrent.futures.wait([reply], min(left_s, WATCH_S))
                if done:
                    return reply.result()
                if cause := watch():
                    raise cause
            raise LaunchError("timeout", f"{phase} went over its limit of {timeout_s:g} s.")
        finally:
            with self._lock:
                self._pending.pop(number, None)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def _application(self) -> Starlette:
        routes = [
            WebSocketRoute("/bridge", self._bridge),
            Route("/model/{name}", functools.partial(self._file, self._files)),
            Route("/{name}", functools.partial(self._file, self._static)),
            Route("/", functools.partial(self._file, self._static)),
        ]
        application = Starlette(routes=routes)
        application.router.redirect_slashes = False
        return application

    async def _file(self, files: Mapping[str, Path], request: Request) -> Response:
        if not self._for_us(request):
            return PlainTextResponse("This server answers only its own page.", 403)
        path = files.get(request.path_params.get("name", "index.html"))
        if path is None or not path.is_file():
            return PlainTextResponse("No such file.", 404, headers=self._headers())
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=media_type, headers=self._headers())

    def _for_us(self, connection: HTTPConnection) -> bool:
        return connection.headers.get("host") == self.host and connection.headers.get("origin", self.origin) == self.origin

    def _headers(self) -> dict[str, str]:
        policy = f"default-src 'none'; script-src {self._script_policy}; worker-src 'self'; connect-src 'self' ws://{self.host}"
        return {
            # Both make the page cross-origin isolated, which wasm threads and the fine clock need.
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": policy + "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }

    async def _bridge(self, page: WebSocket) -> None:
        # A browser always sends the origin of a WebSocket, so one without it is no page of ours.
        if not (self._for_us(page) and "origin" in page.headers and self._use_token(page.query_params.get("token", ""))):
            await page.close(1008)
            return
        await page.accept()
        self._page, self._loop = page, asyncio.get_running_loop()
        self._connected.set_result(None)
        try:
            while True:
                event = await page.receive()
                if event["type"] == "websocket.disconnect":
                    break
                self._take(decode(event.get("bytes") or event["text"]))
        except (ValueError, TypeError, KeyError) as error:
            self._fail(LaunchError("page_error", f"The page sent a message that is not understood: {error}"))
        finally:
            self._fail(Disconnected("The page closed its connection."))

    def _use_token(self, given: str) -> bool:
        with self._lock:
            valid = self._token is not None and secrets.compare_digest(given.encode(), self._token.encode())
            if valid:
                self._token = None
        return valid

    def _take(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Console):
            self._console.append(f"{message.level}: {message.text}")
        elif isinstance(message, Failure) and message.id == 0:
            self._fail(LaunchError(message.error_class, self._told(message)))
        else:
            with self._lock:
                reply = self._pending.get(message.id)
            if reply is None or reply.done():
                return  # came after its time was over
            if isinstance(message, Failure):
                reply.set_exception(LaunchError(message.error_class, self._told(message)))
            else:
                reply.set_result(frame)

    def _told(self, failure: Failure) -> str:
        errors = [line for line in self._console if line.startswith("error:")]
        return failure.message + (f" (console: {errors[-1]})" if errors and failure.message not in errors[-1] else "")

    def _sent(self, sending: concurrent.futures.Future[None]) -> None:
        error = None if sending.cancelled() else sending.exception()
        if error is not None:
            self._fail(Disconnected(f"Nothing can be sent to the page: {error}"))

    def _fail(self, error: Exception) -> None:
        """The page is broken from now on: end what waits and refuse what comes."""
        with self._lock:
            self._broken = self._broken or error
            waiting = list(self._pending.values())
        for reply in waiting:
            if not reply.done():
                reply.set_exception(error)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError:
        if port == 0:
            raise
        return _listen(0)


async def _send(page: WebSocket, frame: str | bytes) -> None:
    if isinstance(frame, str):
        await page.send_text(frame)
    else:
        await page.send_bytes(frame)
