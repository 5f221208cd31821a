"""A server whose browser answers two clients at once: the same tokens as alone, and both go on when the browser is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ipfs_accelerate_py.errors import UnavailableError
from ipfs_accelerate_py.serve.engine import BrowserEngine
from ipfs_accelerate_py.serve.events import Complete, Piece, Recovered
from ipfs_accelerate_py.serve.fair_queue import Client
from ipfs_accelerate_py.serve.job import GenerationRequest
from ipfs_accelerate_py.serve.model import Options, open_service, quantized_folder
from ipfs_accelerate_py.serve.service import Service, events
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.language_model import Sampling

LIMIT_S = 180
PROMPTS = ((50, 60, 70), (80, 81, 82, 83, 84), (9, 8))


async def answer(service: Service, number: int, on_piece: Callable[[int], None] = lambda index: None) -> tuple[list[int], int]:
    """The tokens of 30, and how often its browser was started again."""
    request = GenerationRequest(PROMPTS[number], 30, Sampling(temperature=1.0, seed=number))
    tokens, restarts = [], 0
    async for event in events(service.submit(request, Client("h", str(number)))[0]):
        if isinstance(event, Piece):
            tokens.append(event.token)
            on_piece(event.index)
        restarts += isinstance(event, Recovered)
    assert isinstance(event, Complete), event
    return tokens, restarts


def test_two_clients_at_once_and_a_killed_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three requests alone, then together on two places, then with kill -9 while two of them run."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))
    try:
        browser = find_browser("chromium")
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder = quantized_folder("llama", Options(bits=4, size="tiny", weights="synthetic"))
    options = Options(context=128, batch=2, browser=browser, adapter="software", embeddings=None)
    service = open_service(str(folder), options)
    engine = service.engine
    assert isinstance(engine, BrowserEngine)
    killed: list[int] = []

    def kill(index: int) -> None:
        if index == 4 and not killed:
            killed.append(engine.process_ids()[0])
            os.kill(killed[0], signal.SIGKILL)

    async def work() -> None:
        alone = [await answer(service, number) for number in range(3)]
        assert [restarts for _, restarts in alone] == [0, 0, 0]
        together = await asyncio.gather(*(answer(service, number) for number in range(3)))
        assert list(together) == alone
        shaken = await asyncio.gather(*(answer(service, number, kill) for number in range(3)))
        assert killed and engine.restarts == 1  # the answers of a browser that died share the next one
        assert [tokens for tokens, _ in shaken] == [tokens for tokens, _ in alone]
        assert sum(restarts for _, restarts in shaken) in (1, 2)

    try:
        assert engine.slots == 2
        asyncio.run(asyncio.wait_for(work(), LIMIT_S))
    finally:
        service.close()
