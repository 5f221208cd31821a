"""Errors of the server's two interfaces, in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

INVALID = "invalid_request_error"


class ApiError(Exception):
    """What a client is told: an HTTP ``status``, one sentence, and OpenAI's ``type``, ``param`` and ``code``.

    ``retry_after_s`` is sent as the header that OpenAI's client obeys.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(_sendable(message))
        self.status = status
        self.kind = kind
        self.param = None if param is None else _sendable(param)
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def _sendable(text: str) -> str:
    """Half of a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark: what a client sent is quoted to it."""
    return text.encode(errors="replace").decode()


def busy(message: str) -> ApiError:
    """The queue is full."""
    return ApiError(429, message, kind="rate_limit_error", code="queue_full", retry_after_s=1)


def unavailable(message: str, code: str = "engine_unavailable") -> ApiError:
    return ApiError(503, message, kind="server_error", code=code, retry_after_s=5)
