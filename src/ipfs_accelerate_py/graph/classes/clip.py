"""CLIP as ``models.clip`` runs it: a text and a vision tower. LLaVA and X-CLIP use parts of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.clip import TEXT, VISION
from ..blocks import encoder_layers, unit_length
from ..tape import Tape
from .vit import patch_embedding


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` texts of ``sequence`` tokens and as many images to embeddings."""
    text = {**TEXT, **(config.get("text_config") or {})}
    vision = {**VISION, **(config.get("vision_config") or {})}
    projection = config.get("projection_dim", 512)
    with tape.phase("forward"):
        text_tower(tape, text, batch, sequence)
        tape.linear("text_projection", batch, text["hidden_size"], projection, bias=False)
        with tape.scope("vision"):
            vision_tower(tape, vision, batch, vision["num_hidden_layers"])
            tape.norm("norm", batch, vision["hidden_size"])
        tape.linear("visual_projection", batch, vision["hidden_size"], projection, bias=False)
        unit_length(tape, "normalise_text", batch, projection)
        unit_length(tape, "normalise_image", batch, projection)
    tape.parameter("logit_scale", 1)


def text_tower(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """Token ids to the hidden state of each row's first end token."""
    width, rows = config["hidden_size"], batch * sequence
    with tape.scope("text"):
        tape.embedding("token", rows, width, config["vocab_size"])
        tape.embedding("position", sequence, width, config["max_position_embeddings"])
        tape.elementwise("add_positions", rows * width)
        layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]
        encoder_layers(tape, layers, batch, sequence, width, heads, hidden)
        tape.norm("norm", rows, width)
        tape.product("ends", 1, batch, sequence, sequence)
        tape.product("first_end", batch, 1, sequence, width)


def vision_tower(tape: Tape, config: Mapping[str, Any], batch: int, used: int, class_token: bool = True) -> int:
    """Images to hidden states after ``used`` layers, the others registered alone. Returns the number of vectors of an image.

    Without ``class_token`` it is SigLIP's, with a bias on the patches and no first norm.
    """
    width = config["hidden_size"]
    length = patch_embedding(tape, config, batch, bias=not class_token) + class_token
    if class_token:
        tape.parameter("class_token", width)
        tape.copy("concatenate", batch * length * width)
    tape.parameter("positions", length * width)
    tape.elementwise("add_positions", batch * length * width)
    if class_token:
        tape.norm("first_norm", batch * length, width)
    layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]
    encoder_layers(tape, used, batch, length, width, heads, hidden, masked=False)
    if layers > used:
        layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
        tape.parameter("unused_layers", (layers - used) * layer, quantized=True)
    return length
