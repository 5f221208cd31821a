"""T5 as ``models.t5`` runs it: the encoder with the cross-attention's keys and values, then a decoder on a fixed cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..blocks import attend, write_cache
from ..tape import Tape

START_TOKENS = 1


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """``batch`` texts of ``sequence`` tokens, then ``new_tokens`` generated from one start token."""
    with tape.phase("encoder"):
        _encoder(tape, config, batch, sequence)
        _cross_keys(tape, config, batch, sequence)
    cache = START_TOKENS + new_tokens
    for phase, runs in (("prefill", 1), ("decode", new_tokens - 1)):
        with tape.phase(phase, runs):
            _decoder(tape, config, batch, 1, cache, sequence, cached=True)
            _head(tape, config, batch)


def trace_training(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """The forward pass of the loss, whose labels are as long as the text."""
    with tape.phase("forward"):
        _encoder(tape, config, batch, sequence)
        _cross_keys(tape, config, batch, sequence)
        _decoder(tape, config, batch, sequence, sequence, sequence, cached=False)
        _head(tape, config, batch * sequence)
        tape.softmax("loss", batch * sequence * config["vocab_size"])


def decoder_layers(config: Mapping[str, Any]) -> int:
    return config.get("num_decoder_layers") or config["num_layers"]


def _inner(config: Mapping[str, Any]) -> int:
    return config["num_heads"] * config["d_kv"]


def _encoder(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    width, rows = config["d_model"], batch * sequence
    tape.embedding("embed", rows, width, config["vocab_size"])
    with tape.scope("encoder"):
        _relative_bias(tape, config, sequence, sequence)
        with tape.scope("layers", config["num_layers"]):
            _self_attention(tape, config, batch, sequence, sequence)
            _feed_forward(tape, config, rows)
        tape.norm("norm", rows, width, bias=False)


def _cross_keys(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    with tape.scope("decoder"), tape.scope("cross", decoder_layers(config)):
        for name in ("key", "value"):
            tape.linear(name, batch * sequence, config["d_model"], _inner(config), bias=False)


def _decoder(tape: Tape, config: Mapping[str, Any], batch: int, length: int, cache: int, sequence: int, cached: bool) -> None:
    width, rows, heads, size = config["d_model"], batch * length, config["num_heads"], config["d_kv"]
    tape.embedding("embed", rows, width, config["vocab_size"])
    with tape.scope("decoder"):
        _relative_bias(tape, config, length, cache)
        with tape.scope("layers", decoder_layers(config)):
            _self_attention(tape, config, batch, length, cache, cached)
            with tape.scope("cross"):
                tape.norm("norm", rows, width, bias=False)
                tape.linear("query", rows, width, _inner(config), bias=False)
                attend(tape, batch, heads, length, sequence, size, masked=True)
                tape.linear("output", rows, _inner(config), width, bias=False)
                tape.elementwise("residual", rows * width)
            _feed_forward(tape, config, rows)


def _head(tape: Tape, config: Mapping[str, Any], rows: int) -> None:
    width = config["d_model"]
    tied = config.get("tie_word_embeddings", True)
    with tape.scope("decoder"):
        tape.norm("norm", rows, width, bias=False)
    tape.linear("head", rows, width, config["vocab_size"], bias=False, tied=tied)


def _relative_bias(tape: Tape, config: Mapping[str, Any], queries: int, keys: int) -> None:
    tape.parameter("relative_bias", config.get("relative_attention_num_buckets", 32) * config["num_heads"])
    tape.gather("relative_bias", queries * keys, config["num_heads"])


def _self_attention(tape: Tape, config: Mapping[str, Any], batch: int, length: int, keys: int, cached: bool = False) -> None:
    width, rows, heads, size = config["d_model"], batch * length, config["num_heads"], config["d_kv"]
    tape.norm("norm1", rows, width, bias=False)
    for name in ("query", "key", "value"):
        tape.linear(name, rows, width, _inner(config), bias=False)
    if cached:
        write_cache(tape, batch, heads, keys, size, length)
    attend(tape, batch, heads, length, keys, size, masked=True)
    tape.linear("output", rows, _inner(config), width, bias=False)
    tape.elementwise("residual1", rows * width)


def _feed_forward(tape: Tape, config: Mapping[str, Any], rows: int) -> None:
    width, hidden = config["d_model"], config["d_ff"]
    tape.norm("norm2", rows, width, bias=False)
    tape.linear("expand", rows, width, hidden, bias=False)
    tape.activation("activation", rows * hidden)
    if str(config.get("feed_forward_proj", "relu")).startswith("gated"):
        tape.linear("gate", rows, width, hidden, bias=False)
        tape.elementwise("gated", rows * hidden)
    tape.linear("contract", rows, hidden, width, bias=False)
    tape.elementwise("residual2", rows * width)
