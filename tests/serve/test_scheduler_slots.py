"""Several answers at a time on one engine: who gets a slot, and when it is free again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from running_server import MakeService
from torch_engine import TorchEngine, reference

from ipfs_accelerate_py.serve.events import Complete, Event, Piece
from ipfs_accelerate_py.serve.fair_queue import Client
from ipfs_accelerate_py.serve.job import GenerationRequest, Job
from ipfs_accelerate_py.serve.service import Service, events
from ipfs_accelerate_py.web.language_model import Sampling

LIMIT_S = 120
SAMPLING = Sampling(temperature=1.0, seed=7)


def request(count: int, *prompt: int) -> GenerationRequest:
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


def test_as_many_run_as_there_are_slots_and_the_next_is_another_clients(make_service: MakeService):
    """Two of one client run, four of it and one of another wait: the other's comes before its last three. All answers are right."""
    engine = TorchEngine(slots=2)
    service = make_service(engine)

    async def work() -> None:
        engine.gate.clear()
        many = [service.submit(request(3, 60 + number), Client("h", "many"))[0] for number in range(6)]
        while len(engine.served) < 2:
            await asyncio.sleep(0.01)
        other, before = service.submit(request(3, 99), Client("h", "other"))
        assert before == 6
        assert service.scheduler.status()["running"] == 2
        engine.gate.set()
        for job, first in zip([*many, other], [60, 61, 62, 63, 64, 65, 99], strict=True):
            assert tokens(await all_of(job)) == reference([first], 3, SAMPLING)
        assert engine.most_running == 2
        assert engine.served.index((99,)) <= 3  # before the last three of the client that came first

    run(service, work())


def test_a_short_answer_ends_while_a_long_one_runs(make_service: MakeService):
    """The long one holds one slot until the short ones, one after the other, are over; cancelling it frees its slot for the next."""
    engine = TorchEngine(slots=2)
    service = make_service(engine, buffer_events=100_000)
    stepping = threading.Event()
    engine.step = lambda position: stepping.set()

    async def work() -> None:
        long = service.submit(request(8000, 50), Client("h", "long"))[0]
        await asyncio.to_thread(stepping.wait, LIMIT_S)
        for first in (60, 61, 62):
            assert tokens(await all_of(service.submit(request(4, first), Client("h", "short"))[0])) == reference(
                [first], 4, SAMPLING
            )
        assert not long.over
        service.scheduler.cancel(long)
        last = (await all_of(long))[-1]
        assert isinstance(last, Complete)
        assert last.reason == "cancelled"
        assert 0 < len(long.tokens) < 8000
        while service.scheduler.status()["running"]:
            await asyncio.sleep(0.01)
        engine.gate.clear()
        after = [service.submit(request(2, first), Client("h", "x"))[0] for first in (70, 71)]
        while len(engine.served) < 6:  # both begin though none has gone on: both slots are free
            await asyncio.sleep(0.01)
        engine.gate.set()
        for job, first in zip(after, (70, 71), strict=True):
            assert tokens(await all_of(job)) == reference([first], 2, SAMPLING)

    run(service, work())


def test_closing_ends_every_slot(make_service: MakeService):
    """Both running answers are cancelled, and the threads end."""
    engine = TorchEngine(slots=2)
    service = make_service(engine)

    async def work() -> None:
        engine.gate.clear()
        jobs = [service.submit(request(5000, first), Client("h", str(first)))[0] for first in (50, 51)]
        while len(engine.served) < 2:
            await asyncio.sleep(0.01)
        closing = threading.Thread(target=service.close)
        closing.start()
        while not all(job.cancelled for job in jobs):
            await asyncio.sleep(0.01)
        engine.gate.set()
        for job in jobs:
            assert (await all_of(job))[-1].reason == "cancelled"  # type: ignore[union-attr]
        await asyncio.to_thread(closing.join)

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))
