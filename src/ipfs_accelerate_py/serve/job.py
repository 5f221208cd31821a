"""One request on its way through the engine: its tokens so far, its text, and what its client is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..web.language_model import Sampling, Token
from .channel import Channel
from .detokenize import Decoding, Detokenizer, StopText
from .events import Complete, Failed, Piece
from .fair_queue import Client


@dataclass(frozen=True)
class GenerationRequest:
    """``continues``: the answer goes on with the prompt's text (a completion), rather than being a text of its own (a chat)."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    continues: bool = True


class Job:
    """Written by the engine's thread alone, except ``cancelled``. ``waits_since``: monotonic seconds."""

    def __init__(self, request: GenerationRequest, client: Client, channel: Channel, decoding: Decoding) -> None:
        self.request = request
        self.client = client
        self.channel = channel
        self.cancelled = False
        self.over = False
        self.parked = False
        self.started = False
        self.waits_since = time.monotonic()
        self.tokens: list[int] = []
        self.reused_tokens = 0
        self.warned: set[str] = set()
        self._text = Detokenizer(decoding, request.continues)
        self._stop = StopText(request.stop)

    @property
    def ids(self) -> Sequence[int]:
        """The prompt and the answer so far: what the engine goes on from."""
        return (*self.request.prompt, *self.tokens)

    @property
    def left(self) -> int:
        return self.request.max_new_tokens - len(self.tokens)

    def take(self, token: Token) -> tuple[bool, bool]:
        """Tells a token; whether a stop text was reached, and whether the reader keeps up."""
        self.tokens.append(token.id)
        text, stopped = self._stop.add(self._text.add(token.id))
        return stopped, self.channel.put(Piece(len(self.tokens) - 1, token.id, text, token.logprob))

    def complete(self, reason: str) -> None:
        rest, stopped = "", reason == "stop text"
        if not stopped:
            rest, stopped = self._stop.add(self._text.finish())
            rest += "" if stopped else self._stop.finish()
        final = "stop" if stopped else reason
        self._end(Complete(final, rest, len(self.request.prompt), len(self.tokens), self.reused_tokens))

    def fail(self, status: int, code: str, message: str) -> None:
        self._end(Failed(status, code, message))

    def _end(self, event: Complete | Failed) -> None:
        if not self.over:
            self.over = True
            self.channel.put(event)
