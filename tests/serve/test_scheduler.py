"""Jobs in turn on one engine: slow readers, cancellation, failures."""

from __future__ import annotations

import asyncio
import threading

import pytest
from jobs import LIMIT_S, PROMPT, SAMPLING, all_of, request, run, tokens
from running_server import MakeService
from torch_engine import TorchEngine, reference, text_of

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.serve.channel import Channel
from ipfs_accelerate_py.serve.errors import ApiError
from ipfs_accelerate_py.serve.events import CacheStatus, Complete, Failed, MemoryPressure, Piece, PrefillComplete, Start
from ipfs_accelerate_py.serve.fair_queue import Client


def test_an_answer_is_told_in_order(make_service: MakeService):
    """Start, the first token, the tokens, the cache, the end; they are the model's tokens, and the text is theirs."""
    service = make_service(TorchEngine())

    async def work() -> None:
        told = await all_of(service.submit(request(20), Client("h", "a"))[0])
        assert [type(event) for event in told] == [Start, PrefillComplete, *[Piece] * 20, CacheStatus, Complete]
        assert tokens(told) == reference(PROMPT, 20, SAMPLING)
        text = "".join(event.text for event in told if isinstance(event, Piece)) + told[-1].rest  # type: ignore[union-attr]
        assert text == text_of(tokens(told))
        assert told[-1].reason == "length"  # type: ignore[union-attr]

    run(service, work())


def test_clients_take_turns_on_the_engine(make_service: MakeService):
    """While one answer runs, six requests of one client and one of another wait: the other's is the second after it."""
    engine = TorchEngine()
    service = make_service(engine)

    async def work() -> None:
        engine.gate.clear()
        first = service.submit(request(2), Client("h", "many"))[0]
        await asyncio.to_thread(engine.running.wait, LIMIT_S)
        many = [service.submit(request(2, (60 + number,)), Client("h", "many"))[0] for number in range(6)]
        other, before = service.submit(request(2, (99,)), Client("h", "other"))
        assert before == 7
        engine.gate.set()
        for job in (first, *many, other):
            assert isinstance((await all_of(job))[-1], Complete)
        assert engine.served == [PROMPT, (60,), (99,), (61,), (62,), (63,), (64,), (65,)]

    run(service, work())


def test_a_slow_reader_keeps_nobody_waiting(make_service: MakeService):
    """Its answer stops at the bound, another client's runs through meanwhile, and once it reads it gets every token, the same ones."""
    engine = TorchEngine()
    service = make_service(engine, buffer_events=16)

    async def work() -> None:
        slow = service.submit(request(100), Client("h", "slow"))[0]
        quick = service.submit(request(10), Client("h", "quick"))[0]
        assert tokens(await all_of(quick)) == reference(PROMPT, 10, SAMPLING)
        assert len(slow.tokens) < 20
        assert slow.parked
        assert tokens(await all_of(slow)) == reference(PROMPT, 100, SAMPLING)
        assert len(engine.served) > 2  # it was taken up again

    run(service, work())


def test_a_reader_that_catches_up_just_before_the_producer_stops_is_still_told_of():
    """It was drained once, then filled above the half before ``stopped`` came: the next reading below the half drains it again."""

    async def work() -> None:
        channel, drained = Channel(4), []
        channel.on_drained = lambda: drained.append(len(drained))
        piece = Piece(0, 1, "x", None)
        while channel.put(piece):
            pass
        await channel.get()
        await channel.get()
        assert drained == [0]
        channel.put(piece)  # what is told beside the tokens comes before the producer stops
        channel.stopped()
        await asyncio.sleep(0)  # the loop hears of it
        assert drained == [0]
        await channel.get()
        assert drained == [0, 1]

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def test_a_reader_that_never_reads_is_given_up(make_service: MakeService):
    """After the patience its request ends with an error, which is what it finds when it reads after all."""
    service = make_service(TorchEngine(), buffer_events=8, patience_s=0.2)

    async def work() -> None:
        job = service.submit(request(100), Client("h", "a"))[0]
        while not job.over:
            await asyncio.sleep(0.02)
        told = await all_of(job)
        assert isinstance(told[-1], Failed)
        assert told[-1].code == "slow_reader"
        assert len(told) < 20

    run(service, work())


def test_cancelling_frees_the_engine(make_service: MakeService):
    """A waiting, a running and a parked job: each ends as cancelled, and the next one of another client runs."""
    engine = TorchEngine()
    service = make_service(engine, buffer_events=8)

    async def work() -> None:
        parked = service.submit(request(5000), Client("h", "p"))[0]
        while not parked.parked:
            await asyncio.sleep(0.01)
        engine.gate.clear()
        running = service.submit(request(5000), Client("h", "r"))[0]
        await asyncio.to_thread(engine.running.wait, LIMIT_S)
        waiting = service.submit(request(5000), Client("h", "w"))[0]
        service.scheduler.cancel(waiting)
        service.scheduler.cancel(parked)
        service.scheduler.cancel(running)
        engine.gate.set()
        for job in (waiting, parked, running):
            last = (await all_of(job))[-1]
            assert isinstance(last, Complete)
            assert last.reason == "cancelled"
        assert len(running.tokens) <= 1
        after = await all_of(service.submit(request(3), Client("h", "x"))[0])
        assert tokens(after) == reference(PROMPT, 3, SAMPLING)
        assert service.scheduler.status()["finished"] == 4 - 2  # those that were not running were never finished by the engine

    run(service, work())


def test_a_failing_engine_fails_one_request(make_service: MakeService, capfd: pytest.CaptureFixture[str]):
    """A browser that cannot be had, and a defect: each is told to its own client, and the next request is answered."""
    engine = TorchEngine()
    service = make_service(engine)
    failures: dict[int, Exception] = {5: LaunchError("browser_crashed", "it went away"), 6: ZeroDivisionError("secret")}

    def step(position: int) -> None:
        if position in failures:
            raise failures.pop(position)

    engine.step = step

    async def work() -> None:
        crashed = (await all_of(service.submit(request(5), Client("h", "a"))[0]))[-1]
        assert isinstance(crashed, Failed)
        assert (crashed.status, crashed.code) == (503, "browser_crashed")
        assert "it went away" in crashed.message
        defect = (await all_of(service.submit(request(5), Client("h", "a"))[0]))[-1]
        assert isinstance(defect, Failed)
        assert defect.status == 500
        assert "secret" not in defect.message
        assert tokens(await all_of(service.submit(request(5), Client("h", "a"))[0])) == reference(PROMPT, 5, SAMPLING)

    run(service, work())
    assert "ZeroDivisionError: secret" in capfd.readouterr().err


def test_memory_pressure_is_told_and_acted_on(make_service: MakeService):
    """A context that is nearly full is reported once; a machine below its reserve takes no new request."""
    engine = TorchEngine(context_length=40)
    service = make_service(engine, status_tokens=4)

    async def work() -> None:
        told = await all_of(service.submit(request(37), Client("h", "a"))[0])
        assert [event for event in told if isinstance(event, MemoryPressure)] == [MemoryPressure("context", 1, 40)]
        used = [event.used_tokens for event in told if isinstance(event, CacheStatus)]
        assert used == [7, 11, 15, 19, 23, 27, 31, 35, 39, 40]
        service.scheduler.limits = type(service.limits)(reserve_bytes=1 << 60)
        with pytest.raises(ApiError, match="keeps 1099511627776 in reserve") as refused:
            service.submit(request(3), Client("h", "a"))
        assert refused.value.status == 503

    run(service, work())


def test_closing_ends_what_waits(make_service: MakeService):
    """Nobody waits for a server that is gone: the running answer is cancelled, the waiting one fails."""
    engine = TorchEngine()
    service = make_service(engine)

    async def work() -> None:
        engine.gate.clear()
        running = service.submit(request(5000), Client("h", "a"))[0]
        await asyncio.to_thread(engine.running.wait, LIMIT_S)
        waiting = service.submit(request(5), Client("h", "b"))[0]
        closing = threading.Thread(target=service.close)
        closing.start()
        while not running.cancelled:
            await asyncio.sleep(0.01)
        engine.gate.set()
        assert (await all_of(running))[-1].reason == "cancelled"  # type: ignore[union-attr]
        assert isinstance((await all_of(waiting))[-1], Failed)
        await asyncio.to_thread(closing.join)
        with pytest.raises(ApiError, match="ending"):
            service.submit(request(3), Client("h", "a"))

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))
