"""What the exported torch modules share: a module around a plain function, and the key-value cache of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import ExportGraph
from .prepared import Generation

# Added to an attention score that must not count: exp(-1e4) is 0 in float32, and float16 can hold it.
MASKED = -1e4


class Forward(nn.Module):
    """A transformers model with a forward function of ours: ``forward(model, *inputs)``. The weights stay the model's own."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.model, *inputs)


class StaticCache:
    """The cache that transformers' attention layers see: ``update`` writes new keys and values at their positions.

    ``past`` holds key and value of each layer in turn, [batch, key_value_heads, cache, head_size]; ``positions`` int64 [sequence]
    must be consecutive. Writing is a Gather and a Where, which every engine has and which is exact, and whose shapes are
    static once the dimensions are: slot c takes row c - positions[0] of the new keys where there is such a row.
    """

    def __init__(self, past: Sequence[Tensor], positions: Tensor) -> None:
        self.present = list(past)
        positions = positions.to(torch.int32)  # WebGPU has no 64-bit integers
        slots = torch.arange(past[0].shape[2], dtype=torch.int32, device=positions.device)
        rows = slots - positions[:1]
        last = positions[-1:] - positions[:1]
        self.rows = torch.minimum(rows.clamp(min=0), last)
        self.written = ((rows >= 0) & (rows <= last))[None, None, :, None]
        visible = slots[None, :] <= positions[:, None]
        self.bias = torch.where(visible, 0.0, MASKED)[None, None].to(past[0].dtype)  # [1, 1, sequence, cache]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for index, new in ((2 * layer, key), (2 * layer + 1, value)):
            self.present[index] = torch.where(self.written, new.index_select(2, self.rows), self.present[index])
        return self.present[2 * layer], self.present[2 * layer + 1]


def cache_names(layers: int, kind: str) -> list[str]:
    """``past.0.key, past.0.value, past.1.key, ...`` for ``kind`` past."""
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def decoder_graph(
    model: nn.Module,
    function: Callable[..., Any],
    generation: Generation,
    prompt: np.ndarray,
    cache: int,
    cross: Mapping[str, np.ndarray] | None = None,
) -> ExportGraph:
    """The decoder graph of ``prepared.py`` around ``function(model, input_ids, positions, *past, *cross)``.

    ``prompt`` int64 [batch, sequence] is the example prefill, on a zeroed past; ``cross`` holds cross-attention keys and values.
    """
    past_names = cache_names(generation.layers, "past")
    shape = (prompt.shape[0], generation.key_value_heads, cache, generation.head_size)
    inputs = {"input_ids": prompt, "positions": np.arange(prompt.shape[1], dtype=np.int64)}
    inputs |= {name: np.zeros(shape, dtype=np.float32) for name in past_names}
    dynamic: dict[str, dict[int, str]] = {"input_ids": {0: "batch", 1: "sequence"}, "positions": {0: "sequence"}}
    dynamic |= {name: {0: "batch", 2: "cache"} for name in past_names}
    if cross:
        inputs |= cross
        dynamic |= {name: {0: "batch"} for name in cross}
    outputs = ("logits", *cache_names(generation.layers, "present"))
    return ExportGraph(Forward(model, function), inputs, outputs, dynamic)
