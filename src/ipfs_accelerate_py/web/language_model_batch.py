"""Answers of one model that are decoded together: whoever waits for a token fetches what came of all, and hands out what is the others'."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import LaunchError
from . import protocol
from .language_model_protocol import SequenceTokens

# Of a message of the kind that is expected, in a phase that errors name.
Ask = Callable[[protocol.LanguageModelMessage, Any, str], Any]


@dataclass(frozen=True)
class Token:
    """A generated token; ``logprob`` (natural logarithm) where it was asked for. ``ns`` from the answer's start, by the page's clock:
    tokens that were read back together share it. ``sequence``: which of several prompts it answers, counted from 0."""

    id: int
    logprob: float | None = None
    ns: int = field(default=0, compare=False)
    sequence: int = field(default=0, compare=False)


class BatchAnswer(Iterator[Token]):
    """One answer of a batch, as its tokens come; any thread may read it, one at a time. Raises LaunchError.

    ``finish_reason``, once it is over: stop, length, context, cancelled or failed. ``began_ns`` by the page's clock.
    """

    def __init__(self, batch: Batch, number: int, reused_tokens: int, began_ns: int) -> None:
        self.reused_tokens = reused_tokens
        self.began_ns = began_ns
        self.finish_reason: str | None = None
        self._batch, self.number = batch, number
        self._tokens: deque[Token] = deque()
        self._failure: LaunchError | None = None

    def __next__(self) -> Token:
        self._batch.wait(lambda: self.ready)
        if self._tokens:
            return self._tokens.popleft()
        if self._failure is not None:
            raise self._failure
        raise StopIteration

    @property
    def ready(self) -> bool:
        """Whether it can be read without waiting."""
        return bool(self._tokens) or self.finish_reason is not None

    def take(self) -> list[Token]:
        """What came and was not read yet; raises where the answer failed and all before was read."""
        tokens = list(self._tokens)
        self._tokens.clear()
        if not tokens and self._failure is not None:
            raise self._failure
        return tokens

    def cancel(self) -> None:
        """End it, also from another thread; its place is free for the next step."""
        self._batch.cancel(self)

    close = cancel

    def add(self, part: SequenceTokens) -> None:
        logprobs = part.logprobs or [None] * len(part.tokens)
        self._tokens.extend(Token(*each) for each in zip(part.tokens, logprobs, part.token_ns, strict=True))
        if part.failure:
            self._failure = LaunchError("inference_failed", part.failure)
        self.finish_reason = part.reason or None

    def fail(self, error: LaunchError) -> None:
        self._failure, self.finish_reason = error, "failed"


class Batch:
    """At most ``size`` answers at a time; thread-safe."""

    def __init__(self, ask: Ask, size: int) -> None:
        self.size = size
        self._ask = ask
        self._changed = threading.Condition()  # guards all below
        self._live: dict[int, BatchAnswer] = {}
        self._fetching = False

    def begin(self, request: protocol.GenerateTokens) -> BatchAnswer:
        with self._changed:  # so that nothing of it is handed out before it is known
            facts = self._ask(request, protocol.Facts, "generation")[0].facts
            answer = BatchAnswer(self, facts["sequence"], facts["reused_tokens"], facts["began_ns"])
            self._live[answer.number] = answer
            return answer

    def cancel(self, answer: BatchAnswer) -> None:
        if answer.finish_reason is None:
            self._ask(protocol.CancelTokens(sequence=answer.number), protocol.Done, "cancellation")
            self.wait(lambda: answer.finish_reason is not None)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until ``ready``, which is asked whenever something came."""
        with self._changed:
            while not ready():
                if self._fetching:
                    self._changed.wait()
                    continue
                self._fetching = True
                self._changed.release()
                try:
                    parts, failure = self._fetch()
                finally:
                    self._changed.acquire()
                    self._fetching = False
                self._hand_out(parts, failure)
                self._changed.notify_all()

    def _fetch(self) -> tuple[Sequence[SequenceTokens], LaunchError | None]:
        try:
            return self._ask(protocol.NextOfBatch(), protocol.BatchTokens, "generation")[0].parts, None
        except LaunchError as error:
            return (), error

    def _hand_out(self, parts: Sequence[SequenceTokens], failure: LaunchError | None) -> None:
        for part in parts:
            if answer := self._live.get(part.sequence):
                answer.add(part)
        for answer in self._live.values() if failure else ():
            assert failure is not None
            answer.fail(failure)
        self._live = {number: answer for number, answer in self._live.items() if answer.finish_reason is None}


def answer_all(batch: Batch, requests: Sequence[protocol.GenerateTokens], finish_reasons: list[str | None]) -> Iterator[Token]:
    """The tokens of all ``requests`` as they come, with which one each answers; as many run at a time as the batch has room for, and
    ``finish_reasons`` are filled in. Closing it ends all."""
    waiting = deque(enumerate(requests))
    running: dict[int, BatchAnswer] = {}
    try:
        while waiting or running:
            while waiting and len(running) < batch.size:
                index, request = waiting.popleft()
                running[index] = batch.begin(request)
            batch.wait(lambda: any(answer.ready for answer in running.values()))
            for index, answer in list(running.items()):
                over = answer.finish_reason
                yield from (replace(token, sequence=index) for token in answer.take())
                if over is not None:
                    finish_reasons[index] = over
                    del running[index]
                    answer.take()  # raises what it failed of
    finally:
        for index, answer in running.items():
            answer.cancel()
            finish_reasons[index] = answer.finish_reason
