"""wav2vec 2.0 with its CTC head, as ``models.wav2vec2`` runs it: an input of fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.wav2vec2 import INPUT_SAMPLES
from ..blocks import encoder_layers
from ..tape import Tape


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` waves to logits of every frame."""
    width = config["hidden_size"]
    with tape.phase("forward"):
        frames, channels = _features(tape, config, batch)
        rows = batch * frames
        tape.copy("frames_to_rows", rows * channels)
        tape.norm("feature_norm", rows, channels)
        tape.linear("feature_projection", rows, channels, width)
        kernel, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
        tape.conv("positions", batch, (width, width), (kernel,), (frames,), padding=kernel // 2, groups=groups)
        tape.parameter("positions.weight_norm", kernel)
        tape.activation("positions.activation", rows * width)
        tape.elementwise("add_positions", rows * width)
        tape.norm("norm", rows, width)
        layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]
        encoder_layers(tape, layers, batch, frames, width, heads, hidden, masked=False)
        tape.linear("head", rows, width, config["vocab_size"])
    if config.get("mask_time_prob", 0.05) > 0 or config.get("mask_feature_prob", 0.0) > 0:
        tape.parameter("masked_embedding", width)  # for training


def _features(tape: Tape, config: Mapping[str, Any], batch: int) -> tuple[int, int]:
    """The convolutions over the wave. Returns the number of frames and of channels."""
    size: tuple[int, ...] = (int(config.get("input_samples", INPUT_SAMPLES)),)
    channels = 1
    bias = config.get("conv_bias", False)
    grouped = config.get("feat_extract_norm", "group") == "group"
    for index, (width, kernel, stride) in enumerate(
        zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True)
    ):
        with tape.scope(f"features{index}"):
            size = tape.conv("conv", batch, (channels, width), (kernel,), size, stride=stride, bias=bias)
            if not grouped or index == 0:
                tape.norm("norm", batch * size[0], width)
            tape.activation("activation", batch * size[0] * width)
        channels = width
    return size[0], channels
