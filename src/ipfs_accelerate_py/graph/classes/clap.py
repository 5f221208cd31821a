"""CLAP as ``models.clap`` and ``models.htsat`` run it: RoBERTa for text, a Swin transformer over the spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.clap import AUDIO, FRONT_END, INPUT_SECONDS, TEXT
from ..blocks import attend, feed_forward, unit_length
from ..tape import Tape
from . import bert

SETTINGS: dict[str, Any] = FRONT_END
FRAMES_PER_SECOND = SETTINGS["sampling_rate"] // SETTINGS["hop_length"]


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` texts of ``sequence`` tokens and as many recordings of the configuration's length."""
    text = {**TEXT, **(config.get("text_config") or {})}
    audio = {**AUDIO, **(config.get("audio_config") or {})}
    width, projection = text["hidden_size"], config.get("projection_dim", 512)
    with tape.phase("forward"):
        with tape.scope("text"):
            bert.tower(tape, text, batch, sequence)
            tape.linear("pooler", batch, width, width)
            tape.activation("pooler_activation", batch * width)
        _projection(tape, "text_projection", batch, width, projection)
        with tape.scope("audio"):
            channels = _audio(tape, audio, batch)
        _projection(tape, "audio_projection", batch, channels, projection)
        unit_length(tape, "normalise_text", batch, projection)
        unit_length(tape, "normalise_audio", batch, projection)
    tape.parameter("logit_scales", 2)


def _projection(tape: Tape, name: str, batch: int, width: int, projection: int) -> None:
    with tape.scope(name):
        tape.linear("linear1", batch, width, projection)
        tape.activation("activation", batch * projection)
        tape.linear("linear2", batch, projection, projection)


def _audio(tape: Tape, config: Mapping[str, Any], batch: int) -> int:
    """HTSAT. Returns the width of what it gives for a recording."""
    bins, size = config["num_mel_bins"], config["spec_size"]
    frames = config.get("input_seconds", INPUT_SECONDS) * FRAMES_PER_SECOND + 1
    resized = size * (size // bins)
    tape.norm("spectrogram_norm", batch * frames, bins)
    if frames != resized:
        tape.product("resize", batch, resized, frames, bins)
    tape.copy("to_square", batch * size * size)
    width, patch = config["patch_embeds_hidden_size"], config["patch_size"]
    side = tape.conv("patches", batch, (1, width), (patch, patch), (size, size), stride=patch)[0]
    tape.norm("patches_norm", batch * side * side, width)
    for stage, (depth, heads) in enumerate(zip(config["depths"], config["num_attention_heads"], strict=True)):
        with tape.scope(f"stage{stage}"):
            _blocks(tape, config, batch, side, width, heads, depth)
            if stage < len(config["depths"]) - 1:
                side //= 2
                rows = batch * side * side
                tape.gather("four_patches", rows, 4 * width)
                tape.norm("merge_norm", rows, 4 * width)
                tape.linear("merge", rows, 4 * width, 2 * width, bias=False)
                width *= 2
    tape.norm("norm", batch * side * side, width)
    tape.reduce("mean", batch * side * side * width, batch * width)
    return width


def _blocks(tape: Tape, config: Mapping[str, Any], batch: int, side: int, width: int, heads: int, depth: int) -> None:
    window, rows = min(config["window_size"], side), batch * side * side
    windows, area = rows // window**2, window**2
    with tape.scope("blocks", depth):
        tape.norm("norm1", rows, width)
        tape.gather("to_windows", rows, width)
        for name in ("query", "key", "value"):
            tape.linear(name, rows, width, width, config.get("qkv_bias", True))
        tape.parameter("relative_bias", (2 * window - 1) ** 2 * heads)
        tape.gather("relative_bias", area * area, heads)
        attend(tape, windows, heads, area, area, width // heads, masked=True)
        tape.linear("output", rows, width, width)
        tape.gather("from_windows", rows, width)
        tape.elementwise("residual1", rows * width)
        tape.norm("norm2", rows, width)
        feed_forward(tape, rows, width, int(config.get("mlp_ratio", 4.0) * width))
        tape.elementwise("residual2", rows * width)
