"""Text of tokens as they come: a character whose bytes are spread over several tokens comes with the last of them."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection
from functools import lru_cache

from ..models.processing.text import TextTokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Decoding:
    """How a tokenizer's ids become text; made once for a tokenizer. Special tokens and ``silent`` ids have no text."""

    def __init__(self, tokenizer: TextTokenizer, silent: Collection[int] = ()) -> None:
        from tokenizers import pre_tokenizers

        self._tokenizer = tokenizer.tokenizer
        added = self._tokenizer.get_added_tokens_decoder()
        self.silent = {*silent, *(number for number, token in added.items() if token.special)}
        decoder = self._tokenizer.decoder
        parts = json.loads(decoder.__getstate__()) if decoder is not None else {}
        kinds = {parts.get("type"), *(part["type"] for part in parts.get("decoders", []))}
        self._byte_level = kinds == {"ByteLevel"}
        self._byte_fallback = "ByteFallback" in kinds
        # GPT-2's printable stand-ins for bytes: printable ones stand for themselves, the others follow at 256 in their order.
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        own = [letter for letter in alphabet if ord(letter) < 256]
        others = [byte for byte in range(256) if chr(byte) not in own]
        self._bytes = {letter: ord(letter) for letter in own} | {chr(256 + at): byte for at, byte in enumerate(others)}
        self.token_bytes = lru_cache(maxsize=65536)(self._token_bytes)

    def _token_bytes(self, token: int, first: bool = False) -> bytes:
        """UTF-8 bytes of a token, whole characters or not. ``first``: of a text's first one, which has no space before it."""
        if token in self.silent:
            return b""
        name = self._tokenizer.id_to_token(token)
        if name is None:  # a model may have more ids than its tokenizer
            return b""
        if self._byte_level:
            known = all(letter in self._bytes for letter in name)
            return bytes(self._bytes[letter] for letter in name) if known else name.encode()
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(name)):
            return bytes([int(match[1], 16)])
        alone = self._tokenizer.decode([token], skip_special_tokens=True)
        twice = self._tokenizer.decode([token, token], skip_special_tokens=True)
        return (alone if first or not twice.startswith(alone) else twice[len(alone) :]).encode()


class Detokenizer:
    """The text of one answer. ``continues`` says that it goes on with the prompt's own text, so a space before its first word stays."""

    def __init__(self, decoding: Decoding, continues: bool = True) -> None:
        self._decoding = decoding
        self._first = not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """What is certain of the text with this token; bytes that can never be a character become U+FFFD."""
        data = self._decoding.token_bytes(token, self._first)
        self._first = self._first and token in self._decoding.silent
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was cut off."""
        return self._decoder.decode(b"", final=True)


class StopText:
    """Ends a text before the first of ``stops``; holds back what may be the beginning of one."""

    def __init__(self, stops: Collection[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """The certain text, and whether a stop was found in it."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            kept, self._held = self._held[: min(found)], ""
            return kept, True
        most = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(most, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                kept, self._held = self._held[:-length], self._held[-length:]
                return kept, False
        kept, self._held = self._held, ""
        return kept, False

    def finish(self) -> str:
        kept, self._held = self._held, ""
        return kept
