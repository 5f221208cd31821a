"""Llama, Qwen2 and Mistral as ``models.causal`` runs them: prefill and decode on a cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..blocks import attend, write_cache
from ..tape import Tape


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """``batch`` prompts of ``sequence`` tokens, then ``new_tokens`` generated: the first by prefill, each further one by decode."""
    language_model(tape, config, batch, sequence, new_tokens)


def trace_training(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """The forward pass of the loss: every position's logits, no cache."""
    with tape.phase("forward"):
        logits(tape, config, batch, sequence)


def logits(tape: Tape, config: Mapping[str, Any], batch: int, length: int, image_rows: int = 0) -> None:
    """Every position's logits and their loss, without a cache, within the phase that is recorded."""
    _embed(tape, config, batch * length)
    if image_rows:
        tape.elementwise("with_image", batch * length * config["hidden_size"])
    _layers(tape, config, batch, length, length, cached=False)
    _head(tape, config, batch * length)
    tape.softmax("loss", batch * length * config["vocab_size"])


def language_model(
    tape: Tape, config: Mapping[str, Any], batch: int, prompt: int, new_tokens: int, image_rows: int = 0
) -> None:
    """``prompt`` counts all positions of the prompt; of these ``image_rows`` are replaced by embeddings of an image."""
    cache = prompt + new_tokens
    for phase, length, runs in (("prefill", prompt, 1), ("decode", 1, new_tokens - 1)):
        with tape.phase(phase, runs):
            _embed(tape, config, batch * length)
            if image_rows:
                tape.gather("image_rows", batch * length, config["hidden_size"])
                tape.elementwise("with_image", batch * length * config["hidden_size"])
            _layers(tape, config, batch, length, cache, cached=True)
            _head(tape, config, batch)


def head_size(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def key_value_heads(config: Mapping[str, Any]) -> int:
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the output matrix is the table of embeddings."""
    return bool(config.get("tie_word_embeddings", False))


def _embed(tape: Tape, config: Mapping[str, Any], rows: int) -> None:
    tape.embedding("embed", rows, config["hidden_size"], config["vocab_size"])


def _layers(tape: Tape, config: Mapping[str, Any], batch: int, length: int, keys: int, cached: bool) -> None:
    width, heads, groups, size = (
        config["hidden_size"],
        config["num_attention_heads"],
        key_value_heads(config),
        head_size(config),
    )
    qkv_bias = config.get("model_type") == "qwen2" or config.get("attention_bias", False)
    output_bias = config.get("model_type") != "qwen2" and config.get("attention_bias", False)
    mlp_bias = config.get("mlp_bias", False)
    rows, hidden = batch * length, config["intermediate_size"]
    tape.elementwise("rotary_angles", 2 * length * size, 1)
    with tape.scope("layers", config["num_hidden_layers"]):
        tape.norm("norm1", rows, width, bias=False)
        tape.linear("query", rows, width, heads * size, qkv_bias)
        tape.linear("key", rows, width, groups * size, qkv_bias)
        tape.linear("value", rows, width, groups * size, qkv_bias)
        for name, number in (("rotary_query", heads), ("rotary_key", groups)):
            tape.elementwise(name, 3 * rows * number * size)
        if cached:
            write_cache(tape, batch, groups, keys, size, length)
        attend(tape, batch, heads, length, keys, size, masked=True, value_heads=groups)
        tape.linear("output", rows, heads * size, width, output_bias)
        tape.elementwise("residual1", rows * width)
        tape.norm("norm2", rows, width, bias=False)
        tape.linear("gate", rows, width, hidden, mlp_bias)
        tape.linear("up", rows, width, hidden, mlp_bias)
        tape.activation("activation", rows * hidden)
        tape.elementwise("gated", rows * hidden)
        tape.linear("down", rows, hidden, width, mlp_bias)
        tape.elementwise("residual2", rows * width)


def _head(tape: Tape, config: Mapping[str, Any], rows: int) -> None:
    tape.norm("norm", rows, config["hidden_size"], bias=False)
    tape.linear("head", rows, config["hidden_size"], config["vocab_size"], bias=False, tied=tied(config))
