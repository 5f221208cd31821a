"""X-CLIP as ``models.xclip`` runs it: frames that exchange messages, a transformer over time, and text changed by the video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.clip import TEXT, VISION
from ..blocks import attend, encoder_layers, feed_forward, self_attention, unit_length
from ..tape import Tape
from .clip import text_tower
from .vit import patch_embedding

INTEGRATION = {"mit_hidden_size": 512, "mit_intermediate_size": 2048, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 8}


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` pairs of a video and a text of ``sequence`` tokens."""
    text = {**TEXT, **(config.get("text_config") or {})}
    vision = {**VISION, "num_frames": 8, **INTEGRATION, **(config.get("vision_config") or {})}
    projection, frames = config.get("projection_dim", 512), vision["num_frames"]
    with tape.phase("forward"):
        with tape.scope("vision"):
            length = _frames(tape, vision, batch * frames, frames)
            tape.norm("norm", batch * frames, vision["hidden_size"])
        tape.linear("visual_projection", batch * frames, vision["hidden_size"], projection, bias=False)
        _over_time(tape, vision, batch, frames)
        patches = length - 1
        rows = batch * frames * patches
        tape.norm("prompts_norm", rows, vision["hidden_size"])
        tape.linear("prompts_projection", rows, vision["hidden_size"], projection, bias=False)
        tape.reduce("mean_over_frames", rows * projection, batch * patches * projection)
        text_tower(tape, text, batch, sequence)
        tape.linear("text_projection", batch, text["hidden_size"], projection, bias=False)
        _prompts(tape, config, batch, patches, projection)
        unit_length(tape, "normalise_text", batch, projection)
        unit_length(tape, "normalise_video", batch, projection)
    tape.parameter("logit_scale", 1)


def _frames(tape: Tape, config: Mapping[str, Any], images: int, frames: int) -> int:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    length = patch_embedding(tape, config, images, bias=False) + 1
    rows = images * length
    tape.parameter("class_token", width)
    tape.copy("concatenate", rows * width)
    tape.parameter("positions", length * width)
    tape.elementwise("add_positions", rows * width)
    tape.norm("first_norm", rows, width)
    with tape.scope("layers", config["num_hidden_layers"]):
        tape.linear("message", images, width, width)
        tape.norm("message_norm", images, width)
        with tape.scope("message_attention"):
            self_attention(tape, images // frames, frames, width, heads, masked=False)
        tape.elementwise("message_residual", images * width)
        tape.copy("append_message", images * (length + 1) * width)
        tape.norm("norm1", images * (length + 1), width)
        self_attention(tape, images, length + 1, width, heads, masked=False)
        tape.elementwise("residual1", images * (length + 1) * width)
        tape.norm("norm2", rows, width)
        feed_forward(tape, rows, width, config["intermediate_size"])
        tape.elementwise("residual2", rows * width)
    return length


def _over_time(tape: Tape, config: Mapping[str, Any], batch: int, frames: int) -> None:
    width = config["mit_hidden_size"]
    with tape.scope("integration"):
        tape.parameter("positions", frames * width)
        tape.elementwise("add_positions", batch * frames * width)
        layers, heads = config["mit_num_hidden_layers"], config["mit_num_attention_heads"]
        encoder_layers(tape, layers, batch, frames, width, heads, config["mit_intermediate_size"], masked=False)
        tape.elementwise("residual", batch * frames * width)
        tape.reduce("mean", batch * frames * width, batch * width)


def _prompts(tape: Tape, config: Mapping[str, Any], batch: int, patches: int, width: int) -> None:
    heads = config.get("prompt_num_attention_heads", 8)
    with tape.scope("prompts"):
        tape.norm("norm", batch * patches, width)
        with tape.scope("layers", config.get("prompt_layers", 2)):
            tape.norm("norm1", batch, width)
            tape.linear("query", batch, width, width, bias=False)
            tape.linear("key", batch * patches, width, width, bias=False)
            tape.linear("value", batch * patches, width, width, bias=False)
            attend(tape, batch, heads, 1, patches, width // heads, masked=False)
            tape.linear("output", batch, width, width)
            tape.elementwise("residual1", batch * width)
            tape.norm("norm2", batch, width)
            feed_forward(tape, batch, width, 4 * width)
            tape.elementwise("residual2", batch * width)
        tape.parameter("alpha", width)
        tape.elementwise("add_prompt", batch * width)
