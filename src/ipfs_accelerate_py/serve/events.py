"""What happens to a request, in the order in which it can: each is told to whoever asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Start:
    """The engine took it. ``waited_ms`` in the queue."""

    prompt_tokens: int
    waited_ms: float


@dataclass(frozen=True)
class PrefillComplete:
    """The first token is there. ``reused_tokens`` of the prompt were in the cache; ``first_token_ms`` since the start, seen from here."""

    prompt_tokens: int
    reused_tokens: int
    first_token_ms: float


@dataclass(frozen=True)
class Piece:
    """A token and the text that is certain with it, which may be empty. ``logprob`` is a natural logarithm, where asked for."""

    index: int
    token: int
    text: str
    logprob: float | None


@dataclass(frozen=True)
class CacheStatus:
    """The key-value cache: tokens in it of ``context_length``, and what the engine says of its bytes and widths."""

    used_tokens: int
    context_length: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class MemoryPressure:
    """``context``: the cache is nearly full, in tokens. ``host_memory``: less is free than the server keeps in reserve, in bytes; no new
    request is taken until there is more."""

    cause: Literal["context", "host_memory"]
    available: int
    limit: int


@dataclass(frozen=True)
class Recovered:
    """The browser was started again, and the answer goes on behind its last token."""

    reason: str
    restarts: int


@dataclass(frozen=True)
class Complete:
    """``rest`` is text that was held back. ``reason``: stop, length, context or cancelled."""

    reason: str
    rest: str
    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int


@dataclass(frozen=True)
class Failed:
    """``status`` and ``code`` as in ApiError."""

    status: int
    code: str
    message: str


Event = Start | PrefillComplete | Piece | CacheStatus | MemoryPressure | Recovered | Complete | Failed
LAST = (Complete, Failed)
