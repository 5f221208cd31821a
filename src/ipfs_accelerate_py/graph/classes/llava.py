"""LLaVA and LLaVA-NeXT as ``models.llava`` and ``models.llava_next`` run them: a vision tower, a projector, a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..tape import Tape
from .causal import language_model, logits
from .clip import vision_tower


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """``batch`` images with ``sequence`` tokens of text each, then ``new_tokens`` generated."""
    _trace(tape, config, batch, sequence, new_tokens, tiles=1, block=image_tokens(config))


def trace_next(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """The same with the image in tiles."""
    tiles, block = next_tiles(config)
    tape.parameter("newline", config["text_config"]["hidden_size"])
    _trace(tape, config, batch, sequence, new_tokens, tiles, block)


def _trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int, tiles: int, block: int) -> None:
    with tape.phase("vision"):
        _vision(tape, config, batch, tiles, block)
    with tape.scope("language"):
        language_model(tape, config["text_config"], batch, sequence + block, new_tokens, image_rows=block)


def _vision(tape: Tape, config: Mapping[str, Any], batch: int, tiles: int, block: int) -> None:
    vision, text = config["vision_config"], config["text_config"]
    selected = config.get("vision_feature_layer", -2)
    selected = [selected] if isinstance(selected, int) else selected
    count, width = vision["num_hidden_layers"] + 1, vision["hidden_size"]
    with tape.scope("vision"):
        used = max(layer % count for layer in selected)
        length = vision_tower(tape, vision, batch * tiles, used, has_class_token(vision))
        tape.parameter("last_norm", 2 * width)
    features = length - (config.get("vision_feature_select_strategy", "default") == "default")
    rows = batch * tiles * features
    with tape.scope("projector"):
        bias = config.get("multimodal_projector_bias", True)
        tape.linear("linear1", rows, width * len(selected), text["hidden_size"], bias)
        tape.activation("activation", rows * text["hidden_size"])
        tape.linear("linear2", rows, text["hidden_size"], text["hidden_size"], bias)
    if tiles > 1:
        tape.gather("packing", batch * block, text["hidden_size"])


def has_class_token(vision: Mapping[str, Any]) -> bool:
    return vision.get("model_type", "clip_vision_model") == "clip_vision_model"


def image_tokens(config: Mapping[str, Any]) -> int:
    """Embeddings in the block of an image."""
    from ...models.llava import Llava

    return Llava().image_tokens(config)


def next_tiles(config: Mapping[str, Any]) -> tuple[int, int]:
    """For the one image size that LLaVA-NeXT's graphs have: tiles, the whole image among them, and embeddings in its block."""
    from ...models.llava_next import PINPOINTS, LlavaNext, best_resolution

    size = LlavaNext().example_size(config)
    height, width = best_resolution(size, config.get("image_grid_pinpoints") or PINPOINTS)
    tile = config["vision_config"]["image_size"]
    return 1 + (height // tile) * (width // tile), LlavaNext().image_tokens(config)


def trace_training(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """The forward pass of LLaVA's loss."""
    _forward(tape, config, batch, sequence, tiles=1, block=image_tokens(config))


def trace_next_training(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """The forward pass of LLaVA-NeXT's loss."""
    tiles, block = next_tiles(config)
    tape.parameter("newline", config["text_config"]["hidden_size"])
    _forward(tape, config, batch, sequence, tiles, block)


def _forward(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, tiles: int, block: int) -> None:
    with tape.phase("forward"):
        _vision(tape, config, batch, tiles, block)
        with tape.scope("language"):
            logits(tape, config["text_config"], batch, sequence + block, image_rows=block)
