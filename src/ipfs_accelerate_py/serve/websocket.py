"""The WebSocket at /v1/stream: JSON messages both ways, several answers at once, each with the ``id`` that the client gave it.

From the client: ``generate`` (the parameters of a chat or a completion) and ``cancel``. From the server: ``start, prefill_complete, token,
kv_cache_status, memory_pressure, recovered, complete, error``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from . import parse
from .errors import ApiError
from .events import CacheStatus, Complete, Event, Failed, MemoryPressure, Piece, PrefillComplete, Recovered, Start
from .job import Job
from .openai_format import usage
from .prompt import check_text
from .service import Service, events

PATH = "/v1/stream"
MOST_MESSAGE_BYTES = 1 << 20
LONGEST_ID = 128
# A client may send this many messages at once, and then this many a second.
BURST, PER_SECOND = 64, 32
GENERATE = (*parse.CHAT, *parse.COMPLETION, "type", "id")
NAMES: dict[type, str] = {
    Start: "start",
    PrefillComplete: "prefill_complete",
    Piece: "token",
    CacheStatus: "kv_cache_status",
    MemoryPressure: "memory_pressure",
    Recovered: "recovered",
    Complete: "complete",
    Failed: "error",
}


class Connection:
    """One client's WebSocket. Its end cancels everything that it asked for."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self._service = service
        self._socket = socket
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._allowance, self._counted = float(BURST), time.monotonic()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        await self._socket.accept()
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if not self._allowed():
                    await self._error(
                        None, ApiError(429, f"More than {PER_SECOND} messages a second.", code="too_many_messages")
                    )
                    await self._socket.close(1008)
                    return
                try:
                    await self._take(message.get("text") or message.get("bytes") or "")
                except ApiError as error:
                    await self._error(None, error)
        except (WebSocketDisconnect, TimeoutError):
            return
        finally:
            for job in self._jobs.values():
                self._service.scheduler.cancel(job)
            for task in self._tasks:
                task.cancel()

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._allowance = min(float(BURST), self._allowance + PER_SECOND * (now - self._counted)) - 1
        self._counted = now
        return self._allowance >= 0

    async def _take(self, text: str | bytes) -> None:
        given = parse.read_object(text, GENERATE)
        kind, name = given.pop("type", None), given.pop("id", None)
        if kind not in ("generate", "cancel"):
            raise ApiError(400, "A message's type is generate or cancel.", param="type")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
            raise ApiError(400, f"A message has an id, a text of 1 to {LONGEST_ID} characters.", param="id")
        check_text(name, "id")  # it is sent back
        if kind == "cancel":
            job = self._jobs.get(name)
            if job is None:
                await self._error(
                    name, ApiError(404, f"Nothing with the id '{name}' is running.", param="id", code="unknown_id")
                )
            else:
                self._service.scheduler.cancel(job)
            return
        if name in self._jobs:
            await self._error(
                name, ApiError(409, f"The id '{name}' is in use until its answer is complete.", param="id", code="id_in_use")
            )
            return
        try:
            await self._generate(name, given)
        except ApiError as error:
            await self._error(name, error)

    async def _generate(self, name: str, given: dict[str, Any]) -> None:
        if ("messages" in given) == ("prompt" in given):
            raise ApiError(400, "generate takes messages (a chat) or a prompt (a completion).", param="messages")
        if "model" in given:
            self._service.check_model(given, self._service.name)
        wanted = await self._service.request(given)
        job, _ = self._service.submit(wanted, parse.client(given, self._socket.client))
        self._jobs[name] = job
        task = asyncio.create_task(self._tell(name, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, name: str, job: Job) -> None:
        try:
            async with contextlib.aclosing(events(job)) as told:
                async for event in told:
                    if event_is_last := isinstance(event, Complete | Failed):
                        self._jobs.pop(name, None)
                    await self._send(self._message(name, event))
                    if event_is_last:
                        return
        except (WebSocketDisconnect, RuntimeError, TimeoutError):  # gone, or too slow
            self._service.scheduler.cancel(job)
            with contextlib.suppress(RuntimeError):
                await self._socket.close(1008)

    def _message(self, name: str, event: Event) -> dict[str, Any]:
        head = {"type": NAMES[type(event)], "id": name}
        if isinstance(event, Start):
            return head | dataclasses.asdict(event) | {"model": self._service.name, "about": self._service.about()}
        if isinstance(event, Complete):
            return head | {"finish_reason": event.reason, "text": event.rest, "usage": usage(event)}
        if isinstance(event, CacheStatus):
            return head | {"used_tokens": event.used_tokens, "context_length": event.context_length, **event.facts}
        return head | dataclasses.asdict(event)

    async def _error(self, name: str | None, error: ApiError) -> None:
        fields = {"status": error.status, "code": error.code or error.kind, "message": str(error), "param": error.param}
        await self._send({"type": "error", "id": name, **fields})

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending, asyncio.timeout(self._service.limits.patience_s):
            await self._socket.send_text(json.dumps(message, ensure_ascii=False))
