"""The language model behind the server: one browser, started again when it dies, and the answer goes on where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, cast

from ..errors import LaunchError
from ..web.language_model import LanguageModel, Sampling, Token

# A fresh browser may cure these; the others would come back with the same request.
CURABLE = frozenset(("browser_crashed", "gpu_process_crashed", "device_lost", "page_error", "timeout", "browser_start"))
RESTARTS_PER_ANSWER = 2


class Engine(Protocol):
    """What the scheduler needs. One answer at a time; only ``cancel`` may be called from another thread."""

    context_length: int
    finish_reason: str | None
    reused_tokens: int
    restarts: int

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, on_restart: Callable[[str, int], None]
    ) -> Generator[Token, None, None]:
        """Tokens as they come; ``finish_reason`` says afterwards why they ended. Closing the iterator cancels. Raises LaunchError."""
        ...

    def cancel(self) -> None: ...

    def cache_facts(self) -> dict[str, Any]:
        """Widths and bytes of the key-value cache, as allocated."""
        ...

    def describe(self) -> dict[str, Any]:
        """What runs where: for the startup line and the answers' metadata."""
        ...

    def close(self) -> None: ...


class BrowserEngine:
    """A LanguageModel that ``make`` opens (it is loaded here), and opens again after a crash. ``end_tokens`` end an answer.

    Going on after a restart computes the prompt and the tokens so far anew; the sampler's noise depends on seed and position alone, so
    the answer stays the one that it would have been, up to rounding.
    """

    def __init__(self, make: Callable[[], LanguageModel], end_tokens: Sequence[int], key_bits: int, value_bits: int) -> None:
        self._make = make
        self._end_tokens = tuple(end_tokens)
        self._bits = {"key_bits": key_bits, "value_bits": value_bits}
        self._lock = threading.Lock()  # guards _model against a cancel from another thread
        self._model: LanguageModel | None = None
        self.finish_reason: str | None = None
        self.reused_tokens = 0
        self.restarts = 0
        self._open()
        self.context_length = self._loaded().context_length

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, on_restart: Callable[[str, int], None]
    ) -> Generator[Token, None, None]:
        done: list[int] = []
        failures = 0
        died: LaunchError | None = None
        self.finish_reason = None
        while True:
            left = max_new_tokens - len(done)
            if self.finish_reason is None and left < 1:  # it died between its last token and the word that this was the last
                self.finish_reason = "length"
            if self.finish_reason is not None:
                return
            stream: Generator[Token, None, None] | None = None
            try:
                if self._model is None:
                    self._open()
                if died is not None:
                    self.restarts += 1
                    on_restart(str(died), self.restarts)
                    died = None
                model = self._loaded()
                stream = cast(
                    Generator[Token, None, None],
                    model.generate([*prompt, *done], max_new_tokens=left, sampling=sampling, stop=self._end_tokens),
                )
                for token in stream:
                    if not done:
                        self.reused_tokens = model.reused_tokens
                    done.append(token.id)
                    if token.id in self._end_tokens:
                        self.finish_reason = "stop"
                    yield token
                self.finish_reason = model.finish_reason
                return
            except GeneratorExit:  # whoever listened has stopped
                self._end(stream)
                raise
            except LaunchError as error:
                self._discard()
                failures += 1
                if error.error_class not in CURABLE or failures > RESTARTS_PER_ANSWER:
                    raise
                died = error

    def cancel(self) -> None:
        with self._lock:
            model = self._model
        if model is not None:
            model.cancel()

    def cache_facts(self) -> dict[str, Any]:
        return self._cache_facts

    def describe(self) -> dict[str, Any]:
        return self.facts

    def process_ids(self) -> Sequence[int]:
        """The browser's processes, its root first; none while it is being started again."""
        with self._lock:
            return self._model.process_ids() if self._model is not None else ()

    def close(self) -> None:
        self._discard()

    def _end(self, stream: Generator[Token, None, None] | None) -> None:
        try:
            if stream is not None:
                stream.close()
        except LaunchError:  # it died while it was told to stop: the next answer starts another
            self._discard()

    def _loaded(self) -> LanguageModel:
        assert self._model is not None
        return self._model

    def _open(self) -> None:
        model = self._make()
        try:
            model.load()
            facts = model.metrics()
        except BaseException:
            model.close()
            raise
        device = facts["device"]
        buffers = facts["buffers_bytes"]
        self._cache_facts = {**self._bits, "key_bytes": buffers["keys"], "value_bytes": buffers["values"]}
        self.facts: dict[str, Any] = {
            "engine": "wgsl",
            "browser": facts["browser"],
            "browser_version": facts["version"],
            "adapter": device,
            "software_adapter": device["software_adapter"],
        }
        with self._lock:
            self._model = model

    def _discard(self) -> None:
        with self._lock:
            model, self._model = self._model, None
        if model is not None:
            model.close()
