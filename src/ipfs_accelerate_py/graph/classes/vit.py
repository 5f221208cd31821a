"""ViT image classification, as ``models.vit`` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..blocks import encoder_layers
from ..tape import Tape


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` images of the configuration's size to logits."""
    width = config["hidden_size"]
    labels = config.get("num_labels") or len(config.get("id2label") or {}) or 2
    with tape.phase("forward"):
        patches = patch_embedding(tape, config, batch, bias=True)
        length = patches + 1
        tape.parameter("class_token", width)
        tape.copy("concatenate", batch * length * width)
        tape.parameter("positions", length * width)
        tape.elementwise("add_positions", batch * length * width)
        layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]
        projections_bias = config.get("qkv_bias", True)
        encoder_layers(
            tape,
            layers,
            batch,
            length,
            width,
            heads,
            hidden,
            masked=False,
            bias=projections_bias,
            key_bias=projections_bias,
        )
        tape.norm("norm", batch * length, width)
        tape.linear("classifier", batch, width, labels)


def sides(size: Any) -> tuple[int, int]:
    """Height and width of a size that a configuration gives as one number or as two."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def patch_embedding(tape: Tape, config: Mapping[str, Any], batch: int, bias: bool) -> int:
    """Images cut into patches, each a vector. Returns the number of patches of an image."""
    width, patch = config["hidden_size"], sides(config["patch_size"])
    channels = (config.get("num_channels", 3), width)
    across = tape.conv("patches", batch, channels, patch, sides(config["image_size"]), stride=patch[0], bias=bias)
    tape.copy("patches_to_rows", batch * across[0] * across[1] * width)
    return across[0] * across[1]
