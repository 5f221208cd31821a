"""Parts that several model classes share: attention, feed-forward networks and whole transformer layers."""

from __future__ import annotations

from .tape import Tape


def attend(
    tape: Tape, batch: int, heads: int, queries: int, keys: int, head_size: int, masked: bool, value_heads: int | None = None
) -> None:
    """softmax(q k^T) v of projected queries, keys and values. With fewer ``value_heads`` than heads, those are repeated first."""
    scores = batch * heads * queries * keys
    with tape.fused("attention"):
        for name in ("repeat_keys", "repeat_values") if (value_heads or heads) != heads else ():
            tape.copy(name, batch * heads * keys * head_size)
        tape.product("scores", batch * heads, queries, head_size, keys)
        tape.elementwise("scale", scores, 1)
        if masked:
            tape.elementwise("mask", scores, 1)
        tape.softmax("softmax", scores)
        tape.product("context", batch * heads, queries, keys, head_size)
        tape.copy("merge_heads", batch * heads * queries * head_size)


def self_attention(
    tape: Tape,
    batch: int,
    length: int,
    width: int,
    heads: int,
    masked: bool = True,
    bias: bool = True,
    key_bias: bool | None = None,
) -> None:
    """Multi-head attention of ``length`` vectors of ``width`` with themselves: four projections around ``attend``."""
    rows = batch * length
    tape.linear("query", rows, width, width, bias)
    tape.linear("key", rows, width, width, bias if key_bias is None else key_bias)
    tape.linear("value", rows, width, width, bias)
    attend(tape, batch, heads, length, length, width // heads, masked)
    tape.linear("output", rows, width, width, bias if key_bias is None else True)


def feed_forward(tape: Tape, rows: int, width: int, hidden: int, bias: bool = True) -> None:
    """Two matrices with an activation between."""
    tape.linear("expand", rows, width, hidden, bias)
    tape.activation("activation", rows * hidden)
    tape.linear("contract", rows, hidden, width, bias)


def encoder_layers(
    tape: Tape,
    layers: int,
    batch: int,
    length: int,
    width: int,
    heads: int,
    hidden: int,
    masked: bool = True,
    bias: bool = True,
    key_bias: bool | None = None,
) -> None:
    """``layers`` equal transformer layers, each of attention and a feed-forward network, with a norm and a residual for both."""
    rows = batch * length
    with tape.scope("layers", layers):
        self_attention(tape, batch, length, width, heads, masked, bias, key_bias)
        tape.elementwise("residual1", rows * width)
        tape.norm("norm1", rows, width)
        feed_forward(tape, rows, width, hidden)
        tape.elementwise("residual2", rows * width)
        tape.norm("norm2", rows, width)


def write_cache(tape: Tape, batch: int, heads: int, cache: int, head_size: int, rows: int) -> None:
    """New keys and values of ``rows`` positions put into caches of fixed length, as ``models.modules.StaticCache`` does: each is read
    and written whole."""
    for name in ("keys", "values"):
        tape.gather(f"{name}_rows", batch * heads * cache, head_size)
        tape.copy(f"{name}_cache", batch * heads * cache * head_size)


def unit_length(tape: Tape, name: str, batch: int, width: int) -> None:
    """Embeddings divided by their length."""
    with tape.scope(name):
        tape.reduce("length", batch * width, batch)
        tape.elementwise("divide", batch * width, 1)
