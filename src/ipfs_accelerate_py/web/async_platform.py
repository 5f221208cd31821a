"""``AsyncUnifiedWebPlatform``: the same for asyncio. Each method waits in a thread, so the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .platform import UnifiedWebPlatform
from .requests import Token
from .served_model import OnProgress

Result = TypeVar("Result")

THREADS = 16  # more requests than that wait in the executor's queue, in order


class AsyncUnifiedWebPlatform:
    """Takes what UnifiedWebPlatform takes; an asynchronous context manager. ``platform`` is the synchronous one that it wraps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.platform = UnifiedWebPlatform(*arguments, **options)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="web-platform")

    async def __aenter__(self) -> AsyncUnifiedWebPlatform:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def load(self, on_progress: OnProgress = lambda progress: None) -> dict[str, Any]:
        """As of UnifiedWebPlatform; ``on_progress`` is called in the event loop."""
        loop = asyncio.get_running_loop()
        return await self._call(self.platform.load, lambda progress: loop.call_soon_threadsafe(on_progress, progress))

    async def warm_up(self, passes: int = 1) -> dict[str, Any]:
        return await self._call(self.platform.warm_up, passes)

    async def run_inference(self, inputs: Mapping[str, Any], *, max_new_tokens: int | None = None) -> dict[str, Any]:
        return await self._call(lambda: self.platform.run_inference(inputs, max_new_tokens=max_new_tokens))

    async def stream(self, inputs: Mapping[str, Any], *, max_new_tokens: int | None = None) -> AsyncIterator[Token]:
        """An asynchronous iterator of tokens; ``aclose`` (or leaving the loop that iterates) ends the generation."""
        tokens = await self._call(lambda: self.platform.stream(inputs, max_new_tokens=max_new_tokens))
        coming: asyncio.Future[Token | None] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(self._call(next, tokens, None))
                if (token := await asyncio.shield(coming)) is None:
                    return
                yield token
        finally:
            if coming is not None:  # a generator cannot be closed while a thread waits in it
                await asyncio.wait([coming])
                coming.exception()  # nobody else asks for it where this task was cancelled
            await self._call(tokens.close)  # type: ignore[attr-defined]  # a generator, typed as an iterator

    async def close(self) -> None:
        await self._call(self.platform.close)
        self._threads.shutdown(wait=False)

    async def get_performance_metrics(self) -> dict[str, Any]:
        return await self._call(self.platform.get_performance_metrics)

    async def validate_configuration(self) -> dict[str, Any]:
        return self.platform.validate_configuration()

    async def get_browser_compatibility(self) -> dict[str, Any]:
        return await self._call(self.platform.get_browser_compatibility)

    async def get_feature_usage(self) -> dict[str, Any]:
        return self.platform.get_feature_usage()

    async def profile_kernels(self, context_length: int = 128) -> dict[str, Any]:
        return await self._call(self.platform.profile_kernels, context_length)

    async def serve_metrics(self) -> str:
        return await self._call(self.platform.serve_metrics)

    async def write_trace(self, path: str | Path) -> Path:
        return await self._call(self.platform.write_trace, path)

    async def _call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
