"""Wrappers of the bridge's HTTP side (ASGI): a slow link for benchmarks, and the runtime's files compressed and kept by the browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Wrapper = Callable[[Application], Application]

PART_BYTES = 16 * 1024


def shaped_link(megabits_per_s: float, round_trip_ms: float) -> Wrapper:
    """One link for all connections together: each request waits a round trip, and bodies share the rate, first come, first served.

    What a real link adds (slow start, losses, handshakes of new connections) is left out. WebSockets pass as they are.
    """
    seconds_per_byte = 8 / (megabits_per_s * 1e6)
    free_at = 0.0

    def wrap(application: Application) -> Application:
        async def shaped(scope: Scope, receive: Receive, send: Send) -> None:
            async def slow_send(message: MutableMapping[str, Any]) -> None:
                nonlocal free_at
                if message["type"] != "http.response.body":
                    await send(message)
                    return
                body, more = message.get("body", b""), message.get("more_body", False)
                for start in range(0, len(body), PART_BYTES):
                    part = body[start : start + PART_BYTES]
                    free_at = max(free_at, time.monotonic()) + len(part) * seconds_per_byte
                    if (wait_s := free_at - time.monotonic()) > 0.001:
                        await asyncio.sleep(wait_s)
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": more})

            if scope["type"] == "http":
                await asyncio.sleep(round_trip_ms / 1000)
                await application(scope, receive, slow_send)
            else:
                await application(scope, receive, send)

        return shaped

    return wrap


def kept_runtime(application: Application) -> Application:
    """Files asked for with ``?v=BUILD`` are kept by the browser for good; with ``&gzip`` wasm comes as the compressed copy of the build."""

    async def kept(scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1").split("&")
        if scope["type"] != "http" or not query[0].startswith("v="):
            await application(scope, receive, send)
            return
        compressed = "gzip" in query and scope["path"].endswith(".wasm")

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                changed: dict[bytes, bytes] = {b"cache-control": b"private, max-age=31536000, immutable"}
                if compressed:
                    changed |= {b"content-encoding": b"gzip", b"content-type": b"application/wasm"}
                kept_headers = [(name, value) for name, value in message["headers"] if name.lower() not in changed]
                message = {**message, "headers": [*kept_headers, *changed.items()]}
            await send(message)

        path = scope["path"] + (".gz" if compressed else "")
        await application({**scope, "path": path, "raw_path": path.encode()}, receive, with_headers)

    return kept
