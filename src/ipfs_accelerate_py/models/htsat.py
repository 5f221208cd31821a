"""HTSAT, CLAP's audio tower (Chen et al., 2022, https://arxiv.org/abs/2202.00874), a Swin transformer (https://arxiv.org/abs/2103.14030)
over a spectrogram, in operators that every engine has.

Shifting and partitioning into windows is one Gather by a fixed order of the tokens, merging patches another; resizing the spectrogram
is a product with a fixed matrix. Both are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, softmax

SAME_REGION, OTHER_REGION = 0.0, -100.0  # added to scores within a shifted window, which holds patches of several regions


class AudioTower(nn.Module):
    """Around a ``ClapAudioEncoder``, whose weights stay its own: [batch, 1, frames, mel_bins] to [batch, hidden]."""

    resize: Tensor | None

    def __init__(self, encoder: Any, frames: int) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.ratio = config.spec_size // config.num_mel_bins
        device, dtype = encoder.norm.weight.device, encoder.norm.weight.dtype
        width = config.spec_size * self.ratio  # frames of the resized spectrogram
        self.register_buffer("resize", None if frames == width else bicubic(frames, width).to(device, dtype), persistent=False)
        self.blocks = nn.ModuleList()
        side = encoder.patch_embed.grid_size[0]
        for stage in encoder.layers:
            for index, layer in enumerate(stage.blocks):
                window = min(config.window_size, side)
                shift = window // 2 if index % 2 and side > window else 0
                self.blocks.append(WindowBlock(layer, side, window, shift))
            if stage.downsample is not None:
                self.blocks.append(PatchMerging(stage.downsample, side))
                side //= 2
        self.blocks.to(device)

    def forward(self, input_features: Tensor) -> Tensor:
        norm, embed = self.encoder.batch_norm, self.encoder.patch_embed
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        spectrogram = (input_features[:, 0] - norm.running_mean) * scale + norm.bias
        if self.resize is not None:
            spectrogram = self.resize @ spectrogram
        # Stretches of time below each other, time along the rows: a square image.
        image = spectrogram.unflatten(1, (self.ratio, -1)).transpose(2, 3).flatten(1, 2)[:, None]
        hidden = embed.norm(embed.proj(image).flatten(2).transpose(1, 2))
        for block in self.blocks:
            hidden = block(hidden)
        return self.encoder.norm(hidden).mean(1)


class WindowBlock(nn.Module):
    """A ``ClapAudioLayer`` on ``side`` x ``side`` patches: attention within windows of ``window`` x ``window``, shifted by ``shift``."""

    def __init__(self, layer: Any, side: int, window: int, shift: int) -> None:
        super().__init__()
        if side % window:
            raise ValueError(f"{side} patches cannot be divided into windows of {window}")
        self.layer, self.area = layer, window * window
        order = window_order(side, window, shift)
        self.register_buffer("order", torch.from_numpy(order.astype(np.int32)), persistent=False)
        self.register_buffer("inverse", torch.from_numpy(np.argsort(order).astype(np.int32)), persistent=False)
        mask = torch.from_numpy(region_mask(side, window, shift)) if shift else None
        self.register_buffer("mask", mask, persistent=False)
        pairs = layer.attention.self.relative_position_index.flatten().to(torch.int32)
        self.register_buffer("pairs", pairs.clone(), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        layer, attention = self.layer, self.layer.attention.self
        normed = layer.layernorm_before(hidden).index_select(1, self.order)
        heads = (attention.num_attention_heads, attention.attention_head_size)
        query, key, value = (  # [batch, windows, heads, area, head_size]
            linear(normed).unflatten(1, (-1, self.area)).unflatten(3, heads).transpose(2, 3)
            for linear in (attention.query, attention.key, attention.value)
        )
        bias = attention.relative_position_bias_table.index_select(0, self.pairs)
        bias = bias.unflatten(0, (self.area, self.area)).permute(2, 0, 1)
        scores = (query * heads[1] ** -0.5) @ key.transpose(3, 4) + bias
        if self.mask is not None:
            scores = scores + self.mask.to(scores.dtype)
        context = (softmax(scores, dim=-1) @ value).transpose(2, 3).flatten(3).flatten(1, 2)
        hidden = hidden + layer.attention.output.dense(context).index_select(1, self.inverse)
        return hidden + layer.output.dense(layer.intermediate(layer.layernorm_after(hidden)))


class PatchMerging(nn.Module):
    """A ``ClapAudioPatchMerging``: each 2 x 2 patches become one of twice the width."""

    order: Tensor

    def __init__(self, merging: Any, side: int) -> None:
        super().__init__()
        self.merging = merging
        order = np.arange(side * side).reshape(side // 2, 2, side // 2, 2).transpose(0, 2, 3, 1).ravel()  # down, then right
        self.register_buffer("order", torch.from_numpy(order.astype(np.int32)), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        four = hidden.index_select(1, self.order).unflatten(1, (-1, 4)).flatten(2)
        return self.merging.reduction(self.merging.norm(four))


def bicubic(source: int, target: int) -> Tensor:
    """The matrix [target, source] that resizes as torch's bicubic interpolation with aligned corners does."""
    unit = torch.eye(source)[None, None]
    return interpolate(unit, (target, source), mode="bicubic", align_corners=True)[0, 0]


def window_order(side: int, window: int, shift: int) -> np.ndarray:
    """Which token comes where: rows and columns rolled back by ``shift``, then window by window."""
    grid = np.roll(np.arange(side * side).reshape(side, side), (-shift, -shift), (0, 1))
    return windows_of(grid, window).ravel()


def region_mask(side: int, window: int, shift: int) -> np.ndarray:
    """Float32 [windows, 1, area, area]: after rolling, the last windows hold patches from opposite edges, which must not meet."""
    places = np.arange(side)
    region = (places >= side - window).astype(int) + (places >= side - shift)
    regions = windows_of(region[:, None] * 3 + region[None, :], window)
    other = regions[:, :, None] != regions[:, None, :]
    return np.where(other, OTHER_REGION, SAME_REGION).astype(np.float32)[:, None]


def windows_of(grid: np.ndarray, window: int) -> np.ndarray:
    """[side, side] to [windows, area]."""
    count = len(grid) // window
    return grid.reshape(count, window, count, window).transpose(0, 2, 1, 3).reshape(count * count, window * window)
