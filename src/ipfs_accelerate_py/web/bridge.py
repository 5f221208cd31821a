"""The bridge: serves the page and models' files, and talks with the page over one WebSocket.

Who may connect: only the page that Python opened, or invited. Its URL carries a one-time token, which the first WebSocket uses up; a
WebSocket without it, from another origin or for another host is refused. What HTTP gives to whom is in ``site.py``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import queue
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ..errors import LaunchError, UserError
from .protocol import (
    EVENTS,
    SHARED_BYTES,
    Console,
    Failure,
    Frame,
    Message,
    ReleaseStored,
    Stored,
    UseFiles,
    decode,
    encode,
    encode_stored,
    layout,
)
from .shared_files import SharedFiles, share_files
from .site import Site

LOOPBACK = "127.0.0.1"
# One frame carries all inputs of a workload, or all outputs.
MAX_FRAME_BYTES = 2**31 - 1
MAX_TEXT_BYTES = 8 * 2**20  # a message without tensors: thousands of samples at most
# Messages that answer nothing (console lines, failures of the page itself): a burst, and then so many a second.
UNASKED_BURST, UNASKED_PER_S = 1000, 100.0
STOP_TIMEOUT_S = 5
WATCH_S = 5.0  # longer than a batch of timed iterations, so that watching does not disturb them


class Disconnected(Exception):
    """The page's WebSocket closed while a reply was awaited."""


@dataclass
class Traffic:
    """What went over the WebSocket, tensors and text together, and of tensors by the shared files. ``large_bytes`` are those of frames
    that were so large that they would have gone by the files, had there been some."""

    bytes_sent: int = 0
    bytes_received: int = 0
    file_bytes_sent: int = 0
    file_bytes_received: int = 0
    large_bytes: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class Bridge:
    """A server on a free port in a thread of its own; use it as a context manager.

    ``folder`` and ``files`` are shared with the page at ``model/``, ``allow_eval`` is that of Site. It listens on loopback, or on the
    address ``listen`` of this machine, where other machines reach it (0.0.0.0: on every one). ``port`` is taken where it is free, 0 for
    any. ``wrap`` is put around the server's application (ASGI).
    """

    def __init__(
        self,
        folder: Path | None = None,
        files: Collection[str] = (),
        *,
        allow_eval: bool = False,
        listen: str = LOOPBACK,
        port: int = 0,
        wrap: Callable[[Any], Any] = lambda application: application,
    ) -> None:
        self._token: str | None = secrets.token_urlsafe(32)
        self._ids = itertools.count(1)
        self._pending: dict[int, queue.SimpleQueue[Frame | Exception]] = {}
        self._lock = threading.Lock()  # guards _token, _pending, what is put there, _broken and files
        self._broken: Exception | None = None
        self._page: WebSocket | None = None
        self._connected = threading.Event()
        self._console: deque[str] = deque(maxlen=50)
        self._unasked, self._unasked_since = float(UNASKED_BURST), time.monotonic()
        self.traffic = Traffic()
        self.files: SharedFiles | str = "no large tensor has come yet"  # or why large tensors go by the WebSocket
        self.user_agent = ""  # of the page that connected
        self._socket = _listen(listen, port)
        own = self._socket.getsockname()[1]
        address = _address_of_this_machine() if listen == "0.0.0.0" else listen
        self.host = f"{address}:{own}"
        self.origin = f"http://{self.host}"
        self.url = f"{self.origin}/#token={self._token}"
        self.site = Site({self.host, f"{LOOPBACK}:{own}"}, allow_eval=allow_eval)
        if folder:
            self.site.share(folder, files, prefix="")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                wrap(self.site.application(WebSocketRoute("/bridge", self._bridge))),
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
        self._fail(Disconnected("The bridge was closed."))
        if isinstance(self.files, SharedFiles):
            self.files.close()

    @property
    def console(self) -> list[str]:
        """The page's latest console errors and warnings."""
        return list(self._console)

    @property
    def broken(self) -> Exception | None:
        """Why nothing can be asked of the page any more; None while it can."""
        return self._broken

    @property
    def large_tensors_by(self) -> str:
        """``shared file``, or ``WebSocket`` with the reason."""
        why = self.files if isinstance(self.files, str) else self.files.refused
        return f"WebSocket: {why}" if why else "shared file"

    def open_files(
        self, profile: Path | None, *, timeout_s: float, watch: Callable[[], Exception | None] = lambda: None
    ) -> None:
        """Have large tensors go by files below ``profile`` from now on, see share_files; where that cannot be, or where the page lets a
        request for it wait for longer than ``timeout_s``, ``large_tensors_by`` says why. Raises what else ``request`` raises."""

        def ask(message: Message) -> Message:
            return self.request(message, timeout_s=timeout_s, phase="opening shared files", watch=watch).message

        try:
            files = share_files(ask, profile)
            with self._lock:
                self.files, broken = files, self._broken
            if isinstance(files, SharedFiles):
                if broken:  # perhaps because close() came, which has closed what was there before
                    files.close()
                # Only now, as the page stores its next large reply in them at once, whichever thread that one is for.
                ask(UseFiles(found=True))
        except LaunchError as error:
            if error.error_class != "timeout":
                raise
            if isinstance(self.files, SharedFiles):
                self.files.refused = str(error)  # to be read all the same: the page may hear late that it is to use them
            else:
                self.files = str(error)

    def connected(self, timeout_s: float) -> bool:
        """Wait for the page; False if it has not connected after ``timeout_s``."""
        return self._connected.wait(timeout_s)

    def next_id(self) -> int:
        """A number for a request, for who must know it while the request runs."""
        return next(self._ids)

    def post(self, message: Message) -> None:
        """Send ``message`` and wait for nothing; its reply is dropped."""
        if self._page is not None and self._loop is not None:
            frame = encode(replace(message, id=message.id or self.next_id()))
            asyncio.run_coroutine_threadsafe(self._send(self._page, frame), self._loop).add_done_callback(self._sent)

    def request(
        self,
        message: Message,
        tensors: Mapping[str, np.ndarray] | None = None,
        *,
        timeout_s: float,
        phase: str,
        watch: Callable[[], Exception | None] = lambda: None,
        on_event: Callable[[Message], None] | None = None,
    ) -> Frame:
        """Send ``message`` (with the id that it has, or the next one) and wait for its reply; ``on_event`` gets its events, in this
        thread, and each one starts the limit anew.

        Raises LaunchError: what the page reported, or ``timeout`` after ``timeout_s`` (``phase`` is named in it); Disconnected
        when the page goes away; and what ``watch`` gives, which is asked every WATCH_S seconds.
        """
        page, loop = self._page, self._loop
        if page is None or loop is None:
            raise Disconnected("The page has not connected.")
        arrived: queue.SimpleQueue[Frame | Exception] = queue.SimpleQueue()
        number = message.id or self.next_id()
        with self._lock:
            if self._broken:
                raise self._broken
            self._pending[number] = arrived
        stored: Stored | None = None
        try:
            frame, stored = self._encoded(replace(message, id=number), tensors or {})
            asyncio.run_coroutine_threadsafe(self._send(page, frame), loop).add_done_callback(self._sent)
            deadline = time.monotonic() + timeout_s
            while (left_s := deadline - time.monotonic()) > 0:
                try:
                    answer = arrived.get(timeout=min(left_s, WATCH_S))
                except queue.Empty:
                    if cause := watch():
                        raise cause from None
                    continue
                if isinstance(answer, Exception):
                    raise answer
                if not isinstance(answer.message, EVENTS):
                    return self._whole(answer)
                if on_event:
                    on_event(answer.message)
                deadline = time.monotonic() + timeout_s
            raise LaunchError("timeout", f"{phase} went over its limit of {timeout_s:g} s.")
        finally:
            with self._lock:
                self._pending.pop(number, None)
            self._drop(arrived)
            if stored and isinstance(self.files, SharedFiles):
                self.files.release(stored)

    def _encoded(self, message: Message, tensors: Mapping[str, np.ndarray]) -> tuple[str | bytearray, Stored | None]:
        """The frame, and where its tensors are if they are outside of it."""
        headers, size = layout(tensors)
        if (
            size >= SHARED_BYTES
            and isinstance(self.files, SharedFiles)
            and (stored := self.files.store(tensors, headers, size))
        ):
            with self._lock:
                self.traffic.file_bytes_sent += size
            return encode_stored(message, stored), stored
        return encode(message, tensors), None

    def _drop(self, arrived: queue.SimpleQueue[Frame | Exception]) -> None:
        """What came when nobody waited any more: the page need not hold it."""
        while not arrived.empty():
            late = arrived.get()
            if isinstance(late, Frame) and late.stored and self._broken is None:
                self.post(ReleaseStored(stored_at=late.stored.at))

    def _whole(self, frame: Frame) -> Frame:
        """With the tensors that the page has stored outside of it."""
        if frame.stored is None:
            return frame
        try:
            if not isinstance(self.files, SharedFiles):
                raise ValueError("there is no shared file")
            tensors = self.files.load(frame.stored)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # of its shapes, say, or of the file
            defect = LaunchError("page_error", f"The page sent a message that is not understood: {error}")
            self._fail(defect)
            raise defect from error
        with self._lock:
            self.traffic.file_bytes_received += frame.stored.bytes
        self.post(ReleaseStored(stored_at=frame.stored.at))
        return replace(frame, tensors=tensors, stored=None)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    async def _bridge(self, page: WebSocket) -> None:
        # A browser always sends the origin of a WebSocket, so one without it is no page of ours.
        if not (self.site.for_us(page) and "origin" in page.headers and self._use_token(page.query_params.get("token", ""))):
            await page.close(1008)
            return
        await page.accept(headers=[self.site.cookie_header])
        self.user_agent = page.headers.get("user-agent", "")
        self._page, self._loop = page, asyncio.get_running_loop()
        self._connected.set()
        try:
            while True:
                event = await page.receive()
                if event["type"] == "websocket.disconnect":
                    break
                self._take(event.get("bytes") or event["text"])
        except (ValueError, TypeError, KeyError) as error:
            self._fail(LaunchError("page_error", f"The page sent a message that is not understood: {error}"))
            await page.close(1008)
        finally:
            self._fail(Disconnected("The page closed its connection."))

    def _use_token(self, given: str) -> bool:
        with self._lock:
            valid = self._token is not None and secrets.compare_digest(given.encode(), self._token.encode())
            if valid:
                self._token = None
        return valid

    def _take(self, raw: str | bytes) -> None:
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(raw)
        if isinstance(raw, str) and len(raw) > MAX_TEXT_BYTES:
            raise ValueError(f"a text of {len(raw):,} characters, more than {MAX_TEXT_BYTES:,}")
        if len(raw) >= SHARED_BYTES and not isinstance(raw, str):
            self.traffic.large_bytes += len(raw)
        frame = decode(raw)
        message = frame.message
        if message.id == 0:
            self._count_unasked()
        if isinstance(message, Console):
            self._console.append(f"{message.level}: {message.text}")
        elif isinstance(message, Failure) and message.id == 0:
            self._fail(LaunchError(message.error_class, self._told(message)))
        else:
            answer: Frame | Exception = frame
            if isinstance(message, Failure):
                answer = LaunchError(message.error_class, self._told(message))
            with self._lock:  # also while it is put there, so that who stops waiting finds it
                waiting = self._pending.get(message.id)
                if waiting is not None:
                    waiting.put(answer)
            if waiting is None:  # it came after its time was over, or nobody has ever asked
                if message.id:
                    self._count_unasked()
                if frame.stored:
                    self.post(ReleaseStored(stored_at=frame.stored.at))

    def _count_unasked(self) -> None:
        """Refuses a page that floods Python with what nobody asked for (a token bucket)."""
        now = time.monotonic()
        self._unasked = min(UNASKED_BURST, self._unasked + (now - self._unasked_since) * UNASKED_PER_S) - 1
        self._unasked_since = now
        if self._unasked < 0:
            raise ValueError(f"more than {UNASKED_BURST} messages that answer no request came at once")

    def _told(self, failure: Failure) -> str:
        errors = [line for line in self._console if line.startswith("error:")]
        return failure.message + (f" (console: {errors[-1]})" if errors and failure.message not in errors[-1] else "")

    async def _send(self, page: WebSocket, frame: str | bytearray) -> None:
        if isinstance(frame, str):
            await page.send_text(frame)
        else:
            self.traffic.large_bytes += len(frame) if len(frame) >= SHARED_BYTES else 0
            await page.send({"type": "websocket.send", "bytes": frame})  # send_bytes would ask for immutable ones
        self.traffic.messages_sent += 1
        self.traffic.bytes_sent += len(frame)

    def _sent(self, sending: concurrent.futures.Future[None]) -> None:
        error = None if sending.cancelled() else sending.exception()
        if error is not None:
            self._fail(Disconnected(f"Nothing can be sent to the page: {error}"))

    def _fail(self, error: Exception) -> None:
        """The page is broken from now on: end what waits and refuse what comes."""
        with self._lock:
            self._broken = self._broken or error
            waiting = list(self._pending.values())
        for arrived in waiting:
            arrived.put(error)


def _listen(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port), backlog=64)
    except OSError as refused:
        if port == 0:
            raise UserError(f"The server cannot listen on {address}: {refused}.") from refused
        return _listen(address, 0)


def _address_of_this_machine() -> str:
    """The address under which its network knows this machine. Nothing is sent: connecting a datagram socket only chooses a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): nobody's
        except OSError as alone:
            raise UserError(f"This machine has no network that others could reach it by: {alone}.") from alone
        return probe.getsockname()[0]
