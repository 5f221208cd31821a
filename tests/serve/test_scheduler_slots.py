"""Several answers at a time on one engine: who gets a slot, and when it is free again."""

from __future__ import annotations

import asyncio
import threading

import pytest
from jobs import LIMIT_S, SAMPLING, all_of, request, run, tokens
from running_server import MakeService, until
from torch_engine import TorchAnswer, TorchEngine, reference

from ipfs_accelerate_py.serve.events import Complete
from ipfs_accelerate_py.serve.fair_queue import Client


def test_as_many_run_as_there_are_slots_and_the_next_is_another_clients(make_service: MakeService):
    """Two of one client run, four of it and one of another wait: the other's comes before its last three. All answers are right."""
    engine = TorchEngine(slots=2)
    service = make_service(engine)

    async def work() -> None:
        engine.gate.clear()
        many = [service.submit(request(3, (60 + number,)), Client("h", "many"))[0] for number in range(6)]
        while len(engine.served) < 2:
            await asyncio.sleep(0.01)
        other, before = service.submit(request(3, (99,)), Client("h", "other"))
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
        long = service.submit(request(8000, (50,)), Client("h", "long"))[0]
        await asyncio.to_thread(stepping.wait, LIMIT_S)
        for first in (60, 61, 62):
            assert tokens(await all_of(service.submit(request(4, (first,)), Client("h", "short"))[0])) == reference(
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
        after = [service.submit(request(2, (first,)), Client("h", "x"))[0] for first in (70, 71)]
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
        jobs = [service.submit(request(5000, (first,)), Client("h", str(first)))[0] for first in (50, 51)]
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


def test_a_job_that_another_slot_resumes_takes_no_slot_with_it(make_service: MakeService):
    """A parked job runs in the other slot before its first thread has let go of it: it is counted once, and both slots live."""
    engine = TorchEngine(slots=2)
    service = make_service(engine, buffer_events=16)

    async def work() -> None:
        slow = service.submit(request(40, (50,)), Client("h", "slow"))[0]
        stopped = slow.channel.stopped

        def linger() -> None:
            slow.channel.stopped = stopped  # type: ignore[method-assign]
            stopped()
            until(lambda: len(engine.served) == 2, LIMIT_S)

        slow.channel.stopped = linger  # type: ignore[method-assign]
        while not slow.parked:
            await asyncio.sleep(0.01)
        assert tokens(await all_of(slow)) == reference([50], 40, SAMPLING)
        while service.scheduler.status()["running"]:
            await asyncio.sleep(0.01)
        assert service.scheduler.status()["finished"] == 1
        served = len(engine.served)
        engine.gate.clear()
        after = [service.submit(request(2, (first,)), Client("h", "x"))[0] for first in (70, 71)]
        while len(engine.served) < served + 2:  # both begin though none has gone on: both slots are free
            await asyncio.sleep(0.01)
        engine.gate.set()
        for job, first in zip(after, (70, 71), strict=True):
            assert tokens(await all_of(job)) == reference([first], 2, SAMPLING)

    run(service, work())


def test_a_cancel_that_waits_for_its_page_keeps_no_other_slot(make_service: MakeService, monkeypatch: pytest.MonkeyPatch):
    """While one answer's cancel waits, the other slot ends its answer and gives three more."""
    engine = TorchEngine(slots=2)
    service = make_service(engine, buffer_events=100_000)
    asked, page = threading.Event(), threading.Event()
    cancel = TorchAnswer.cancel

    def wait_for_page(answer: TorchAnswer) -> None:
        asked.set()
        page.wait(LIMIT_S)
        cancel(answer)

    monkeypatch.setattr(TorchAnswer, "cancel", wait_for_page)

    async def work() -> None:
        engine.gate.clear()
        long, other = (service.submit(request(count, (50,)), Client("h", str(count)))[0] for count in (8000, 4))
        while len(engine.served) < 2:
            await asyncio.sleep(0.01)
        service.scheduler.cancel(long)
        assert await asyncio.to_thread(asked.wait, LIMIT_S)
        engine.gate.set()
        try:
            assert tokens(await all_of(other)) == reference([50], 4, SAMPLING)
            for first in (60, 61, 62):
                job = service.submit(request(4, (first,)), Client("h", "next"))[0]
                assert tokens(await asyncio.wait_for(all_of(job), LIMIT_S / 2)) == reference([first], 4, SAMPLING)
            assert not page.is_set()
        finally:
            page.set()
        assert (await all_of(long))[-1].reason == "cancelled"  # type: ignore[union-attr]

    run(service, work())
