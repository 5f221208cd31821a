"""DETR as ``models.detr`` runs it: a ResNet, then an encoder and a decoder over its last feature map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.detr import PUBLISHED_SIZE
from ..blocks import attend, feed_forward
from ..tape import Tape

REDUCTION = 4  # of a bottleneck


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` images of the fixed size to class logits and boxes."""
    width, queries = config["d_model"], config["num_queries"]
    labels = config.get("num_labels") or len(config.get("id2label") or {}) or 2
    height, across = config.get("image_size", PUBLISHED_SIZE)
    with tape.phase("forward"):
        with tape.scope("backbone"):
            channels, size = _resnet(tape, config["backbone_config"], batch, (height, across))
        tape.conv("input_projection", batch, (channels, width), (1, 1), size)
        places = size[0] * size[1]
        tape.copy("map_to_rows", batch * places * width)
        with tape.scope("encoder"):
            _encoder(tape, config, batch, places)
        tape.parameter("queries", queries * width)
        with tape.scope("decoder"):
            _decoder(tape, config, batch, queries, places)
        rows = batch * queries
        tape.linear("classes", rows, width, labels + 1)
        with tape.scope("boxes"):
            tape.linear("linear1", rows, width, width)
            tape.activation("activation1", rows * width)
            tape.linear("linear2", rows, width, width)
            tape.activation("activation2", rows * width)
            tape.linear("linear3", rows, width, 4)
            tape.activation("sigmoid", rows * 4)


def _resnet(tape: Tape, config: Mapping[str, Any], batch: int, size: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Convolutions, each with a frozen norm, whose numbers are no parameters. Returns channels and size of the last map."""
    channels = config["embedding_size"]
    size = _conv(tape, "stem", batch, (config.get("num_channels", 3), channels), 7, size, 2)
    size = tuple((n + 1) // 2 for n in size)
    tape.reduce("pool", batch * 9 * size[0] * size[1] * channels, batch * size[0] * size[1] * channels)
    for stage, (width, depth) in enumerate(zip(config["hidden_sizes"], config["depths"], strict=True)):
        with tape.scope(f"stage{stage}"):
            stride = 1 if stage == 0 and not config.get("downsample_in_first_stage", False) else 2
            size = _bottleneck(tape, "first", batch, channels, width, size, stride, shortcut=channels != width or stride != 1)
            with tape.scope("others", depth - 1):
                if depth > 1:
                    _bottleneck(tape, "block", batch, width, width, size, 1, shortcut=False)
        channels = width
    return channels, size


def _bottleneck(
    tape: Tape,
    name: str,
    batch: int,
    channels: int,
    width: int,
    size: tuple[int, ...],
    stride: int,
    shortcut: bool,
) -> tuple[int, ...]:
    narrow = width // REDUCTION
    with tape.scope(name):
        _conv(tape, "conv1", batch, (channels, narrow), 1, size, 1)
        out = _conv(tape, "conv2", batch, (narrow, narrow), 3, size, stride)
        _conv(tape, "conv3", batch, (narrow, width), 1, out, 1, activated=False)
        if shortcut:
            _conv(tape, "shortcut", batch, (channels, width), 1, size, stride, activated=False)
        elements = batch * out[0] * out[1] * width
        tape.elementwise("residual", elements)
        tape.activation("activation", elements)
    return out


def _conv(
    tape: Tape,
    name: str,
    batch: int,
    channels: tuple[int, int],
    kernel: int,
    size: tuple[int, ...],
    stride: int,
    activated: bool = True,
) -> tuple[int, ...]:
    out = tape.conv(name, batch, channels, (kernel, kernel), size, stride, padding=kernel // 2, bias=False)
    elements = batch * out[0] * out[1] * channels[1]
    tape.elementwise(f"{name}.frozen_norm", elements, 1)
    if activated:
        tape.activation(f"{name}.activation", elements)
    return out


def _attention(tape: Tape, name: str, batch: int, heads: int, queries: int, keys: int, width: int) -> None:
    with tape.scope(name):
        tape.elementwise("add_positions", batch * queries * width)
        tape.linear("query", batch * queries, width, width)
        tape.linear("key", batch * keys, width, width)
        tape.linear("value", batch * keys, width, width)
        attend(tape, batch, heads, queries, keys, width // heads, masked=False)
        tape.linear("output", batch * queries, width, width)
        tape.elementwise("residual", batch * queries * width)
        tape.norm("norm", batch * queries, width)


def _feed_forward(tape: Tape, rows: int, width: int, hidden: int) -> None:
    feed_forward(tape, rows, width, hidden)
    tape.elementwise("residual", rows * width)
    tape.norm("norm", rows, width)


def _encoder(tape: Tape, config: Mapping[str, Any], batch: int, places: int) -> None:
    width, heads = config["d_model"], config["encoder_attention_heads"]
    with tape.scope("layers", config["encoder_layers"]):
        _attention(tape, "self", batch, heads, places, places, width)
        _feed_forward(tape, batch * places, width, config["encoder_ffn_dim"])


def _decoder(tape: Tape, config: Mapping[str, Any], batch: int, queries: int, places: int) -> None:
    width, heads = config["d_model"], config["decoder_attention_heads"]
    with tape.scope("layers", config["decoder_layers"]):
        _attention(tape, "self", batch, heads, queries, queries, width)
        _attention(tape, "cross", batch, heads, queries, places, width)
        _feed_forward(tape, batch * queries, width, config["decoder_ffn_dim"])
    tape.norm("norm", batch * queries, width)
