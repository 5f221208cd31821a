"""What requests do beside the page: tokens are counted and streams are closed; no browser runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.web.async_platform import AsyncUnifiedWebPlatform
from ipfs_accelerate_py.web.requests import Token, _generated

LIMIT_S = 60


def test_tokens_behind_a_row_s_end_are_not_counted():
    """Two rows of five tokens: one ends with its second, one never; without end tokens all count."""
    tokens = np.array([[4, 9, 4, 4, 9], [1, 2, 3, 4, 5]])
    assert _generated(tokens, (9,)) == 2 + 5
    assert _generated(tokens, ()) == 10


def test_a_cancelled_task_closes_its_stream():
    """The task is cancelled while a thread waits for a token: the stream ends after it, and the task as cancelled."""
    waits, token_comes, closed = threading.Event(), threading.Event(), threading.Event()

    class Platform:
        def stream(self, inputs: Any, max_new_tokens: int | None) -> Iterator[Token]:
            try:
                waits.set()
                assert token_comes.wait(LIMIT_S)
                yield Token(0, 1, "x", 1.0, "simulated")
            finally:
                closed.set()

    async def work() -> None:
        platform = AsyncUnifiedWebPlatform("bert", "text", "wasm", web_api_mode="simulation")
        platform.platform = Platform()  # type: ignore[assignment]

        async def listen() -> None:
            async for _ in platform.stream({"text": "x"}):
                pass

        task = asyncio.create_task(listen())
        assert await asyncio.to_thread(waits.wait, LIMIT_S)
        task.cancel()
        await asyncio.sleep(0)  # the cancellation reaches the stream
        token_comes.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LIMIT_S)
        assert closed.is_set()

    asyncio.run(work())
