"""Whisper as ``models.whisper`` runs it: the encoder with the cross-attention's keys and values, then a decoder on a fixed cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.whisper import LABELS, PUBLISHED_START
from ..blocks import attend, encoder_layers, feed_forward, write_cache
from ..tape import Tape


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """``batch`` spectrograms of the configuration's length, then ``new_tokens`` generated from the start tokens."""
    frames, start = config["max_source_positions"], len(PUBLISHED_START.get(config["vocab_size"], (0,)))
    with tape.phase("encoder"):
        _encoder(tape, config, batch)
    for phase, length, runs in (("prefill", start, 1), ("decode", 1, new_tokens - 1)):
        with tape.phase(phase, runs):
            _decoder(tape, config, batch, length, start + new_tokens, frames, cached=True)
            _head(tape, config, batch)


def trace_training(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """The forward pass of the loss on a fixed number of labels."""
    labels = min(LABELS, config["max_target_positions"])
    with tape.phase("forward"):
        _encoder(tape, config, batch)
        _decoder(tape, config, batch, labels, labels, config["max_source_positions"], cached=False)
        _head(tape, config, batch * labels)
        tape.softmax("loss", batch * labels * config["vocab_size"])


def _encoder(tape: Tape, config: Mapping[str, Any], batch: int) -> None:
    width, frames = config["d_model"], config["max_source_positions"]
    rows = batch * frames
    with tape.scope("encoder"):
        size = tape.conv("conv1", batch, (config.get("num_mel_bins", 80), width), (3,), (2 * frames,), padding=1)
        tape.activation("activation1", batch * size[0] * width)
        tape.conv("conv2", batch, (width, width), (3,), size, stride=2, padding=1)
        tape.activation("activation2", rows * width)
        tape.parameter("positions", frames * width)
        tape.elementwise("add_positions", rows * width)
        layers, heads, hidden = config["encoder_layers"], config["encoder_attention_heads"], config["encoder_ffn_dim"]
        encoder_layers(tape, layers, batch, frames, width, heads, hidden, masked=False, key_bias=False)
        tape.norm("norm", rows, width)
    with tape.scope("decoder"), tape.scope("cross", config["decoder_layers"]):
        tape.linear("key", rows, width, width, bias=False)
        tape.linear("value", rows, width, width)


def _decoder(tape: Tape, config: Mapping[str, Any], batch: int, length: int, cache: int, frames: int, cached: bool) -> None:
    width, heads, rows = config["d_model"], config["decoder_attention_heads"], batch * length
    with tape.scope("decoder"):
        tape.embedding("embed", rows, width, config["vocab_size"])
        tape.embedding("positions", length, width, config["max_target_positions"])
        tape.elementwise("add_positions", rows * width)
        with tape.scope("layers", config["decoder_layers"]):
            tape.norm("norm1", rows, width)
            tape.linear("query", rows, width, width)
            tape.linear("key", rows, width, width, bias=False)
            tape.linear("value", rows, width, width)
            if cached:
                write_cache(tape, batch, heads, cache, width // heads, length)
            attend(tape, batch, heads, length, cache, width // heads, masked=True)
            tape.linear("output", rows, width, width)
            tape.elementwise("residual1", rows * width)
            with tape.scope("cross"):
                tape.norm("norm", rows, width)
                tape.linear("query", rows, width, width)
                attend(tape, batch, heads, length, frames, width // heads, masked=False)
                tape.linear("output", rows, width, width)
                tape.elementwise("residual", rows * width)
            tape.norm("norm2", rows, width)
            feed_forward(tape, rows, width, config["decoder_ffn_dim"])
            tape.elementwise("residual2", rows * width)


def _head(tape: Tape, config: Mapping[str, Any], rows: int) -> None:
    with tape.scope("decoder"):
        tape.norm("norm", rows, config["d_model"])
    tape.linear("head", rows, config["d_model"], config["vocab_size"], bias=False, tied=True)
