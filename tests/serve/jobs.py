"""Jobs as the tests of the scheduler hand them in, and what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ipfs_accelerate_py.serve.events import Event, Piece
from ipfs_accelerate_py.serve.job import GenerationRequest, Job
from ipfs_accelerate_py.serve.service import Service, events
from ipfs_accelerate_py.web.language_model import Sampling

PROMPT = (50, 60, 70)
SAMPLING = Sampling(temperature=1.0, seed=7)
LIMIT_S = 120


def request(count: int, prompt: tuple[int, ...] = PROMPT) -> GenerationRequest:
    return GenerationRequest(prompt, count, SAMPLING)


def run(service: Service, work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(asyncio.wait_for(work, LIMIT_S))
    finally:
        service.close()


async def all_of(job: Job) -> list[Event]:
    return [event async for event in events(job)]


def tokens(told: list[Event]) -> list[int]:
    return [event.token for event in told if isinstance(event, Piece)]
