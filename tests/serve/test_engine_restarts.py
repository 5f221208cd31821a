"""Whose failure it is when a browser that several answers share dies; by models that die on purpose, without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.serve.engine import RESTARTS_PER_ANSWER, BrowserAnswer, BrowserEngine
from ipfs_accelerate_py.web.language_model import Sampling, Token


class DyingModel:
    """``begin`` says what becomes of its answers: nothing, or an error. ``batch`` 1 has ``generate``, 2 ``start``."""

    context_length = 64

    def __init__(self, begin: Callable[[DyingModel], None], batch: int = 2) -> None:
        self.batch, self._begin = batch, begin
        self.closed = self.cancelled = 0
        self.reused_tokens = 0
        self.finish_reason: str | None = None

    def load(self) -> None:
        pass

    def metrics(self) -> dict[str, Any]:
        return {
            "device": {"software_adapter": True},
            "buffers_bytes": {"keys": 1, "values": 1},
            "browser": "none",
            "version": "0",
        }

    def start(self, ids: list[int], **options: Any) -> DyingModel:
        return self

    def generate(self, ids: list[int], **options: Any) -> Iterator[Token]:
        self.finish_reason = None
        yield from self

    def __iter__(self) -> Iterator[Token]:
        self._begin(self)
        yield Token(5)
        self.finish_reason = "length"

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        self.closed += 1


def opened(begin: Callable[[DyingModel], None], batch: int = 2) -> tuple[BrowserEngine, list[DyingModel]]:
    models: list[DyingModel] = []

    def make() -> Any:
        models.append(DyingModel(begin, batch))
        return models[-1]

    return BrowserEngine(make, (), 16, 16), models


def an_answer(engine: BrowserEngine) -> BrowserAnswer:
    return engine.generate([1], 1, Sampling(), lambda reason, restarts: None)


def test_deaths_that_another_answer_caused_are_not_counted():
    """Its browser dies more often than an answer may fail, each time discarded by another answer first: it goes on to its end."""
    deaths = RESTARTS_PER_ANSWER + 2

    def begin(model: DyingModel) -> None:
        if len(models) <= deaths:
            assert engine.discard(model)  # type: ignore[arg-type]
            raise LaunchError("browser_crashed", "it went away")

    engine, models = opened(begin)
    answer = an_answer(engine)
    assert [token.id for token in answer] == [5]
    assert answer.finish_reason == "length"
    assert engine.restarts == deaths
    assert [model.closed for model in models] == [1] * deaths + [0]


def test_its_own_deaths_are_counted():
    """Nobody else discards them: after two restarts the third death is told."""

    def begin(model: DyingModel) -> None:
        raise LaunchError("browser_crashed", "it went away")

    engine, models = opened(begin)
    with pytest.raises(LaunchError, match="it went away"):
        list(an_answer(engine))
    assert [model.closed for model in models] == [1] * (RESTARTS_PER_ANSWER + 1)


def test_a_late_cancel_ends_nobody_elses_answer():
    """Where one answer runs at a time the model ends whatever runs: one that is over asks for nothing any more."""
    engine, models = opened(lambda model: None, batch=1)
    first = an_answer(engine)
    assert [token.id for token in first] == [5]
    first.cancel()
    assert models[0].cancelled == 0
