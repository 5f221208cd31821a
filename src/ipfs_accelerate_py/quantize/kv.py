"""The quantised key-value cache: layout, exact bytes, and the reference in NumPy.

The layout of KIVI (Liu et al., 2024, https://arxiv.org/abs/2402.02750): keys are quantised for each channel over FOLD tokens, values for
each token over FOLD channels; both asymmetric, ``x = code * step + least``. A group of FOLD tokens is folded when it has left
the recent window, so the newest tokens stay float16. A folded tile (FOLD tokens of one key-value head) is uint32 words::

    keys:   [word][channel], bits words a channel: 32 / bits tokens a word, token t at bits (t % n) * bits of word t // n
    values: [word][token][channel group], the same along the group's 32 channels (the head padded with zeros to whole groups)
    3 bits: words 0 and 1 hold the two low bits, 16 a word; word 2 the third bit, 32 a word
    then one plane of (step, least), two float16 in a word: step in the low half

so a number costs bits + 1 bits. ``browser/kernels/cache.wgsl`` is the same layout on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from . import architecture
from .formats import pack_words, unpack_words

FOLD = 32
BITS = (16, 8, 4, 3, 2)
RECENT_TOKENS = 128
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class CacheFormat:
    """Bits of keys and values (16: float16, never folded) and the tokens that stay float16. UserError for others."""

    key_bits: int
    value_bits: int
    recent_tokens: int = RECENT_TOKENS

    def __post_init__(self) -> None:
        for what, bits in (("keys", self.key_bits), ("values", self.value_bits)):
            if bits not in BITS:
                raise UserError(f"The cache can hold {what} at {', '.join(map(str, BITS))} bits, not {bits}.")
        if self.recent_tokens < 0 or self.recent_tokens % FOLD:
            raise UserError(f"The recent window is a multiple of {FOLD} tokens; {self.recent_tokens} is not.")

    def folded_tokens(self, tokens: int) -> int:
        """Of ``tokens`` in the cache, those in folded tiles: whole groups that have left the recent window."""
        return max(0, tokens - self.recent_tokens) // FOLD * FOLD

    def bytes_per_token(self, config: Mapping[str, Any], folded: bool = True) -> float:
        """Bytes of a token over all layers, once it is folded, or as long as it is recent."""
        heads, size = architecture.key_value_heads(config), architecture.head_size(config)
        channels = {"key": size, "value": -(-size // FOLD) * FOLD}
        bits = 0
        for part, width in (("key", self.key_bits), ("value", self.value_bits)):
            bits += channels[part] * (width + 1) if folded and width < 16 else 16 * size
        return int(config["num_hidden_layers"]) * heads * bits / 8

    def bytes_of(self, config: Mapping[str, Any], tokens: int) -> int:
        """Bytes of the cache of one sequence of ``tokens``: folded tiles and what is still float16 of keys and values."""
        folded = self.folded_tokens(tokens)
        total = folded * self.bytes_per_token(config) + (tokens - folded) * self.bytes_per_token(config, folded=False)
        return math.ceil(total)

    def tokens_in(self, config: Mapping[str, Any], budget_bytes: int) -> int:
        """Most tokens of one sequence whose cache takes at most ``budget_bytes``."""
        low, high = 0, int(budget_bytes // self.bytes_per_token(config)) + 1
        while low < high:  # bytes_of grows, except by less than a group where one is folded
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes_of(config, middle) <= budget_bytes else (low, middle - 1)
        return low


def quantize(values: np.ndarray, bits: int, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes uint8 of the shape of ``values``, and float16 step and least value with ``axis`` (FOLD long) kept as 1.

    The codes are made for step and least value as stored; a group of equal values has step 0 and codes 0.
    """
    least, most = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
    largest = 2**bits - 1
    step = ((most - least) / np.float32(largest)).astype(np.float16)
    offset = least.astype(np.float16)
    wide = step.astype(np.float32)
    scaled = np.divide(values - offset.astype(np.float32), wide, out=np.zeros_like(values, np.float32), where=wide != 0)
    return np.floor(scaled + np.float32(0.5)).clip(0, largest).astype(np.uint8), step, offset


def decode(codes: np.ndarray, step: np.ndarray, least: np.ndarray) -> np.ndarray:
    """float32 of the shape of ``codes``."""
    return codes.astype(np.float32) * step.astype(np.float32) + least.astype(np.float32)


def folded_keys(keys: np.ndarray, bits: int) -> np.ndarray:
    """What attention sees of folded keys: float32 [..., tokens, channels] from float32 of that shape; tokens a multiple of FOLD."""
    groups = keys.reshape(*keys.shape[:-2], keys.shape[-2] // FOLD, FOLD, keys.shape[-1])
    return decode(*quantize(groups, bits, -2)).reshape(keys.shape)


def folded_values(values: np.ndarray, bits: int) -> np.ndarray:
    """The same of values: groups of FOLD channels of a token; the last group is padded with zeros."""
    channels = values.shape[-1]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -channels % FOLD)])
    groups = padded.reshape(*padded.shape[:-1], -(-channels // FOLD), FOLD)
    return decode(*quantize(groups, bits, -1)).reshape(padded.shape)[..., :channels]


def key_tile(keys: np.ndarray, bits: int) -> np.ndarray:
    """uint32 [bits + 1, channels]: the stored tile of keys float32 [FOLD, channels] of one head."""
    codes, step, least = quantize(keys.astype(np.float32), bits, 0)
    return np.concatenate([_words(codes.T, bits).T, _scale_words(step[0], least[0])[None]])


def value_tile(values: np.ndarray, bits: int) -> np.ndarray:
    """uint32 [bits + 1, FOLD, channel groups]: the stored tile of values float32 [FOLD, channels] of one head."""
    padded = np.pad(values.astype(np.float32), [(0, 0), (0, -values.shape[1] % FOLD)])
    codes, step, least = quantize(padded.reshape(FOLD, -1, FOLD), bits, -1)
    words = _words(codes.reshape(-1, FOLD), bits).T.reshape(bits, FOLD, -1)
    return np.concatenate([words, _scale_words(step[..., 0], least[..., 0])[None]])


def decode_key_tile(tile: np.ndarray) -> np.ndarray:
    """float32 [FOLD, channels] from ``key_tile``'s words."""
    bits = len(tile) - 1
    step, least = _scales(tile[-1])
    return decode(_codes(tile[:-1].T, bits).T, step[None], least[None])


def decode_value_tile(tile: np.ndarray, channels: int) -> np.ndarray:
    """float32 [FOLD, channels] from ``value_tile``'s words."""
    bits = len(tile) - 1
    step, least = _scales(tile[-1])
    codes = _codes(tile[:-1].reshape(bits, -1).T, bits).reshape(*tile.shape[1:], FOLD)
    return decode(codes, step[..., None], least[..., None]).reshape(FOLD, -1)[:, :channels]


def _words(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint32 [rows, bits] from FOLD codes a row."""
    if bits == 3:
        return np.concatenate([pack_words(codes & 3, 2), pack_words(codes >> 2, 1)], axis=1)
    return pack_words(codes, bits)


def _codes(words: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [rows, FOLD]: the inverse of ``_words``."""
    words = np.ascontiguousarray(words)
    if bits == 3:
        return unpack_words(words[:, :2], 2) | unpack_words(words[:, 2:], 1) << 2
    return unpack_words(words, bits)


def _scale_words(step: np.ndarray, least: np.ndarray) -> np.ndarray:
    return step.view(np.uint16).astype("<u4") | least.view(np.uint16).astype("<u4") << np.uint32(16)


def _scales(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (words & np.uint32(0xFFFF)).astype(np.uint16).view(np.float16), (words >> np.uint32(16)).astype(np.uint16).view(
        np.float16
    )
