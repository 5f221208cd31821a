"""Answers in the form of OpenAI's API: whole ones, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from .detokenize import Decoding
from .events import Complete, Piece

FINISH = {"stop": "stop", "length": "length", "context": "length", "cancelled": "stop"}


@dataclass
class Format:
    """One answer. ``about`` says what made it: it is in a whole answer, and in a stream's first chunk, as ``ipfs_accelerate``."""

    chat: bool
    model: str
    logprobs: bool
    include_usage: bool
    decoding: Decoding
    about: dict[str, Any]
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)
        self._offset = 0
        self._told = False

    def first(self) -> str | None:
        return self._chunk({"role": "assistant", "content": ""}, None, None) if self.chat else None

    def chunk(self, piece: Piece) -> str | None:
        """None for a token that shows nothing."""
        if not piece.text and not self.logprobs:
            return None
        logprobs = self._logprobs([piece]) if self.logprobs else None
        self._offset += len(piece.text)
        return self._chunk({"content": piece.text} if self.chat else piece.text, None, logprobs)

    def last(self, complete: Complete) -> list[str]:
        """The text that was held back, the reason of the end, and the usage where it was asked for."""
        chunks = [self._chunk({"content": complete.rest} if self.chat else complete.rest, None, None)] if complete.rest else []
        chunks.append(self._chunk({} if self.chat else "", FINISH[complete.reason], None))
        if self.include_usage:
            chunks.append(self._event({"choices": [], "usage": usage(complete)}))
        return [*chunks, "data: [DONE]\n\n"]

    def whole(self, pieces: list[Piece], complete: Complete) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces) + complete.rest
        content: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        )
        logprobs = self._logprobs(pieces) if self.logprobs else None
        choice = {"index": 0, **content, "logprobs": logprobs, "finish_reason": FINISH[complete.reason]}
        kind = "chat.completion" if self.chat else "text_completion"
        return self._object(kind) | {"choices": [choice], "usage": usage(complete)}

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any]:
        data = [self.decoding.token_bytes(piece.token) for piece in pieces]
        tokens = [part.decode("utf-8", "replace") for part in data]
        values = [piece.logprob for piece in pieces]
        if self.chat:
            content = [
                {"token": token, "logprob": value, "bytes": list(part), "top_logprobs": []}
                for token, value, part in zip(tokens, values, data, strict=True)
            ]
            return {"content": content, "refusal": None}
        offsets, at = [], self._offset
        for piece in pieces:
            offsets.append(at)
            at += len(piece.text)
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}

    def _chunk(self, content: dict[str, Any] | str, reason: str | None, logprobs: dict[str, Any] | None) -> str:
        part = {"delta": content} if self.chat else {"text": content}
        choice = {"index": 0, **part, "logprobs": logprobs, "finish_reason": reason}
        return self._event({"choices": [choice]} | ({"usage": None} if self.include_usage else {}))

    def _event(self, fields: dict[str, Any]) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        head = self._object(kind)
        if self._told:
            del head["ipfs_accelerate"]
        self._told = True
        return event(head | fields)

    def _object(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "ipfs_accelerate": self.about}


def event(fields: dict[str, Any]) -> str:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"


def usage(complete: Complete) -> dict[str, Any]:
    prompt, new = complete.prompt_tokens, complete.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": complete.reused_tokens},
    }
