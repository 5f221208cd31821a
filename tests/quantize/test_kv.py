"""The quantised cache: stored tiles, exact bytes, and attention against a decoder that goes token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.quantize import kv
from ipfs_accelerate_py.quantize.kv import FOLD, CacheFormat
from ipfs_accelerate_py.quantize.quality import cached_attention

SEVEN = {"model_type": "llama", **model_classes()["llama"].sizes["7b"].config}
BITS = (2, 3, 4, 8)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(BITS), st.integers(1, 130), st.integers(0, 1000))
def test_tiles_decode_to_what_attention_sees(bits: int, channels: int, seed: int) -> None:
    """Packed and unpacked, keys and values are exactly the reference's, for heads of any size."""
    values = np.random.default_rng(seed).standard_normal((FOLD, channels)).astype(np.float32)
    keys = kv.key_tile(values, bits)
    assert keys.shape == (bits + 1, channels)
    assert np.array_equal(kv.decode_key_tile(keys), kv.folded_keys(values, bits))
    tile = kv.value_tile(values, bits)
    assert tile.shape == (bits + 1, FOLD, -(-channels // FOLD))
    assert np.array_equal(kv.decode_value_tile(tile, channels), kv.folded_values(values, bits))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(BITS), st.integers(0, 1000))
def test_a_decoded_number_is_within_half_a_step(bits: int, seed: int) -> None:
    """Of its group's span, plus what float16 rounds of the span and the least value."""
    keys = np.random.default_rng(seed).standard_normal((2, 64, 40)).astype(np.float32) + 3
    groups = keys.reshape(2, 2, FOLD, 40)
    span = groups.max(2) - groups.min(2)
    error = np.abs(kv.folded_keys(keys, bits) - keys).reshape(groups.shape).max(2)
    assert (error <= 0.5 * span / (2**bits - 1) + 0.004 * np.abs(groups).max(2)).all()


def test_a_key_word_by_hand() -> None:
    """A channel with values 0 to 31 at 2 bits: step 31/3, and 16 codes a word from the low bits on."""
    tile = kv.key_tile(np.arange(32, dtype=np.float32)[:, None], 2)
    step = float(np.float16(31 / 3))
    codes = [min(3, math.floor(token / step + 0.5)) for token in range(32)]
    assert [int(word) for word in tile[:2, 0]] == [
        sum(code << 2 * i for i, code in enumerate(codes[part : part + 16])) for part in (0, 16)
    ]
    assert int(tile[2, 0]) == int(np.float16(31 / 3).view(np.uint16))  # the least value, 0, is in the high half


def test_equal_values_cost_nothing() -> None:
    """A group without a span decodes to its value, rounded to float16."""
    assert np.array_equal(kv.folded_keys(np.full((32, 4), 1.5, np.float32), 2), np.full((32, 4), 1.5, np.float32))


@pytest.mark.parametrize(
    ("key_bits", "value_bits", "expected"),
    [(16, 16, 524_288), (8, 8, 294_912), (4, 4, 163_840), (4, 2, 131_072), (2, 2, 98_304)],
)
def test_bytes_a_token_by_hand(key_bits: int, value_bits: int, expected: int) -> None:
    """Llama-2-7B: 32 layers of 32 heads of 128, each number its bits and one for step and least value."""
    assert CacheFormat(key_bits, value_bits).bytes_per_token(SEVEN) == expected


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(BITS), st.sampled_from(BITS), st.sampled_from((0, 32, 128)), st.integers(0, 600))
def test_bytes_are_those_of_the_tiles(key_bits: int, value_bits: int, recent: int, tokens: int) -> None:
    """Against the arrays that a small cache really has."""
    config = {"hidden_size": 80, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 3}
    cache = CacheFormat(key_bits, value_bits, recent)
    tiles = cache.folded_tokens(tokens) // FOLD
    zeros = np.zeros((FOLD, 40), np.float32)
    tile = kv.key_tile(zeros, key_bits).nbytes + kv.value_tile(zeros, value_bits).nbytes
    floats = (tokens - tiles * FOLD) * 2 * 40 * 2
    assert cache.bytes_of(config, tokens) == 3 * 2 * (tiles * tile + floats)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(BITS), st.integers(1_000_000, 2**33))
def test_the_tokens_of_a_budget_fit_and_one_group_more_does_not(bits: int, budget: int) -> None:
    """For any budget."""
    cache = CacheFormat(bits, bits)
    tokens = cache.tokens_in(SEVEN, budget)
    assert cache.bytes_of(SEVEN, tokens) <= budget
    assert cache.bytes_of(SEVEN, tokens + FOLD) > budget


@pytest.mark.parametrize(("key_bits", "value_bits"), [(16, 16), (8, 8), (4, 2), (2, 3), (16, 2)])
def test_attention_is_that_of_a_decoder_token_by_token(key_bits: int, value_bits: int) -> None:
    """One query after the other, each on the cache as it is then: folded groups decoded, the rest float."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 150, 16, generator=draw)
    key, value = (torch.randn(1, 2, 150, 16, generator=draw) for _ in range(2))
    cache = CacheFormat(key_bits, value_bits, 32)
    whole = cached_attention(query, key, value, 0.25, cache)
    for position in (0, 31, 63, 64, 100, 149):
        seen = position + 1
        folded = cache.folded_tokens(seen)
        for head in range(4):
            keys, values = key[0, head // 2, :seen].clone().numpy(), value[0, head // 2, :seen].clone().numpy()
            if key_bits < 16:
                keys[:folded] = kv.folded_keys(keys[:folded], key_bits)
            if value_bits < 16:
                values[:folded] = kv.folded_values(values[:folded], value_bits)
            scores = keys @ query[0, head, position].numpy() * 0.25
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ values
            assert np.allclose(whole[0, position, head].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"), [((5, 4), "hold keys at 16, 8, 4, 3, 2 bits, not 5"), ((4, 4, 20), "multiple of 32")]
)
def test_other_caches_are_refused(arguments: tuple[int, ...], sentence: str) -> None:
    """Widths and windows that the layout does not have."""
    with pytest.raises(UserError, match=sentence):
        CacheFormat(*arguments)
