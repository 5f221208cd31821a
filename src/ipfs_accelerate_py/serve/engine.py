"""The language model behind the server: one browser, started again when it dies, and the answer goes on where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol, cast

from ..errors import LaunchError
from ..web.language_model import LanguageModel, Sampling, Token

# A fresh browser may cure these; the others would come back with the same request.
CURABLE = frozenset(("browser_crashed", "gpu_process_crashed", "device_lost", "page_error", "timeout", "browser_start"))
RESTARTS_PER_ANSWER = 2


class Answer(Protocol):
    """Tokens as they come. ``finish_reason`` says afterwards why they ended; ``reused_tokens`` of the prompt were in the cache, known from
    the first token on. Iterating raises LaunchError."""

    finish_reason: str | None
    reused_tokens: int

    def __iter__(self) -> Iterator[Token]: ...

    def cancel(self) -> None:
        """End it; from any thread."""
        ...

    def close(self) -> None:
        """By its reader, who wants no more of it."""
        ...


class Engine(Protocol):
    """What the scheduler needs. ``slots`` answers at a time, each read by a thread of its own."""

    slots: int
    context_length: int
    restarts: int

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, on_restart: Callable[[str, int], None]
    ) -> Answer: ...

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
        self.end_tokens = tuple(end_tokens)
        self._bits = {"key_bits": key_bits, "value_bits": value_bits}
        self._lock = threading.Lock()  # guards _model against a cancel from another thread
        self._opening = threading.Lock()  # held while a browser is started, so that the answers of one that died share the next
        self._model: LanguageModel | None = None
        self.restarts = 0
        model = self.current()
        self.context_length, self.slots = model.context_length, model.batch

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, on_restart: Callable[[str, int], None]
    ) -> BrowserAnswer:
        return BrowserAnswer(self, prompt, max_new_tokens, sampling, on_restart)

    def current(self, after: LaunchError | None = None) -> LanguageModel:
        """The loaded model, which is opened where there is none; ``after`` it died, which counts as a restart."""
        with self._opening:
            if self._model is None:
                self._open()
                self.restarts += after is not None
            return self._loaded()

    def discard(self, died: LanguageModel | None) -> None:
        """Close a model that no longer answers, unless another has taken its place."""
        with self._lock:
            if self._model is not died:
                return
            self._model = None
        if died is not None:
            died.close()

    def cache_facts(self) -> dict[str, Any]:
        return self._cache_facts

    def describe(self) -> dict[str, Any]:
        return self.facts

    def process_ids(self) -> Sequence[int]:
        """The browser's processes, its root first; none while it is being started again."""
        with self._lock:
            return self._model.process_ids() if self._model is not None else ()

    def close(self) -> None:
        self.discard(self._model)

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


class BrowserAnswer:
    """One answer of a BrowserEngine, over restarts of its browser."""

    def __init__(
        self,
        engine: BrowserEngine,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        on_restart: Callable[[str, int], None],
    ) -> None:
        self.finish_reason: str | None = None
        self.reused_tokens = 0
        self._engine, self._prompt, self._most = engine, prompt, max_new_tokens
        self._sampling, self._on_restart = sampling, on_restart
        self._stream: Answer | None = None
        self._cancelled = False
        self._tokens = self._generate()

    def __iter__(self) -> Iterator[Token]:
        return self._tokens

    def cancel(self) -> None:
        self._cancelled = True
        if (stream := self._stream) is not None:
            stream.cancel()

    def close(self) -> None:
        self._tokens.close()

    def _generate(self) -> Generator[Token, None, None]:
        engine, failures = self._engine, 0
        done: list[int] = []
        died: LaunchError | None = None
        while True:
            left = self._most - len(done)
            if self.finish_reason is None and left < 1:  # it died between its last token and the word that this was the last
                self.finish_reason = "length"
            if self.finish_reason is not None:
                return
            model = None
            try:
                model = engine.current(died)
                if died is not None:
                    self._on_restart(str(died), engine.restarts)
                    died = None
                stream = self._stream = _begin(model, [*self._prompt, *done], left, self._sampling, engine.end_tokens)
                if self._cancelled:
                    stream.close()
                    self.finish_reason = "cancelled"
                    return
                for token in stream:
                    if not done:
                        self.reused_tokens = stream.reused_tokens
                    done.append(token.id)
                    if token.id in engine.end_tokens:
                        self.finish_reason = "stop"
                    yield token
                self.finish_reason = stream.finish_reason
                return
            except GeneratorExit:  # whoever listened has stopped
                self._end(model)
                raise
            except LaunchError as error:
                if error.error_class != "inference_failed":  # which the other answers have nothing to do with
                    engine.discard(model)
                failures += 1
                if error.error_class not in CURABLE or failures > RESTARTS_PER_ANSWER:
                    raise
                died = error

    def _end(self, model: LanguageModel | None) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        except LaunchError:  # it died while it was told to stop: the next answer starts another
            self._engine.discard(model)


class _OnlyAnswer:
    """The answer of a model that has one at a time."""

    def __init__(self, model: LanguageModel, tokens: Generator[Token, None, None]) -> None:
        self._model, self._tokens = model, tokens

    @property
    def finish_reason(self) -> str | None:
        return self._model.finish_reason

    @property
    def reused_tokens(self) -> int:
        return self._model.reused_tokens

    def __iter__(self) -> Iterator[Token]:
        return self._tokens

    def cancel(self) -> None:
        self._model.cancel()

    def close(self) -> None:
        self._tokens.close()


def _begin(model: LanguageModel, ids: Sequence[int], most: int, sampling: Sampling, ends: Sequence[int]) -> Answer:
    if model.batch > 1:
        return cast(Answer, model.start(ids, max_new_tokens=most, sampling=sampling, stop=ends))
    stream = model.generate(ids, max_new_tokens=most, sampling=sampling, stop=ends)
    return cast(Answer, _OnlyAnswer(model, cast(Generator[Token, None, None], stream)))
