"""Which formulas belong to which architecture, and the few numbers of its shape that others ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from .classes import bert, causal, clap, clip, detr, llava, t5, vit, wav2vec2, whisper, xclip
from .tape import Tape

Trace = Callable[[Tape, Mapping[str, Any], int, int, int], None]

TRACES: dict[str, Trace] = {
    "bert": bert.trace,
    "causal": causal.trace,
    "clap": clap.trace,
    "clip": clip.trace,
    "detr": detr.trace,
    "llama": causal.trace,
    "llava": llava.trace,
    "llava_next": llava.trace_next,
    "qwen2": causal.trace,
    "t5": t5.trace,
    "vit": vit.trace,
    "wav2vec2": wav2vec2.trace,
    "whisper": whisper.trace,
    "xclip": xclip.trace,
}
# Forward passes of the loss, where it is not the pass of inference.
TRAINING: dict[str, Callable[[Tape, Mapping[str, Any], int, int], None]] = {
    "causal": causal.trace_training,
    "llama": causal.trace_training,
    "llava": llava.trace_training,
    "llava_next": llava.trace_next_training,
    "qwen2": causal.trace_training,
    "t5": t5.trace_training,
    "whisper": whisper.trace_training,
}


def trace_of(
    architecture: str,
    config: Mapping[str, Any],
    *,
    batch: int,
    sequence: int,
    new_tokens: int,
    precision: str,
    mode: str,
) -> Tape:
    """The record of one iteration (its forward pass, in training) of a model of this configuration."""
    if architecture not in TRACES:
        raise UserError(f"The operators of '{architecture}' are not known by name; export it to ONNX and give that file.")
    tape = Tape(precision)
    if mode == "training" and architecture in TRAINING:
        TRAINING[architecture](tape, config, batch, sequence)
    else:
        TRACES[architecture](tape, config, batch, sequence, new_tokens)
    return tape


def shape_of(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """``layers``, ``hidden_size``, ``heads``, ``key_value_heads``, ``head_size``, ``vocabulary`` and ``generates``; of a model with
    several towers those of the language model, or of the text's."""
    if architecture == "t5":
        return _shape(
            t5.decoder_layers(config), config["d_model"], config["num_heads"], config["vocab_size"], True, config["d_kv"]
        )
    if architecture == "whisper":
        return _shape(
            config["decoder_layers"], config["d_model"], config["decoder_attention_heads"], config["vocab_size"], True
        )
    if architecture == "detr":
        return _shape(config["decoder_layers"], config["d_model"], config["decoder_attention_heads"], 0, False)
    generates = architecture in ("causal", "llama", "qwen2", "llava", "llava_next")
    if architecture in ("clip", "clap", "xclip"):
        defaults = clap.TEXT if architecture == "clap" else clip.TEXT
        config = {**defaults, **(config.get("text_config") or {})}
    elif architecture in ("llava", "llava_next"):
        config = config["text_config"]
    heads = config["num_attention_heads"]
    shape = _shape(config["num_hidden_layers"], config["hidden_size"], heads, config.get("vocab_size", 0), generates)
    if generates:
        shape |= {"key_value_heads": causal.key_value_heads(config), "head_size": causal.head_size(config)}
    return shape


def _shape(
    layers: int, width: int, heads: int, vocabulary: int, generates: bool, head_size: int | None = None
) -> dict[str, Any]:
    return {
        "layers": layers,
        "hidden_size": width,
        "heads": heads,
        "key_value_heads": heads,
        "head_size": head_size or width // heads,
        "vocabulary": vocabulary,
        "generates": generates,
    }
