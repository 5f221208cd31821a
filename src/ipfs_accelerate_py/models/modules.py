"""What the exported torch modules share: a module around a plain function, and the key-value cache of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Forward:
        """What ``to`` and its like call. Rotary frequencies stay float32: rounded to float16, they turn position 2000 by a radian."""
        rotary = [module for module in self.modules() if "inv_freq" in dict(module.named_buffers(recurse=False))]
        exact = [(module, module.get_buffer("inv_freq")) for module in rotary]
        super()._apply(fn, recurse)
        for module, frequencies in exact:
            module.inv_freq = frequencies.to(module.get_buffer("inv_freq").device)
        return self


class StaticCache:
    """The cache that transformers' attention layers see: ``update`` writes new keys and values at their positions.

    ``past`` holds key and value of each layer in turn, [batch, key_value_heads, cache, head_size]; ``positions`` int32 [sequence]
    must be consecutive. Writing is a Gather and a Where, which every engine has and which is exact, and whose shapes are
    static once the dimensions are: slot c takes row c - positions[0] of the new keys where there is such a row.
    """

    def __init__(self, past: Sequence[Tensor], positions: Tensor) -> None:
        self.present = list(past)
        slots = torch.arange(past[0].shape[2], dtype=torch.int32, device=positions.device)
        rows = slots - positions[0]
        written = (rows >= 0) & (slots <= positions[-1])
        self.rows = torch.where(written, rows, 0)
        self.written = written[None, None, :, None]
        self.distances = slots[None, :] - positions[:, None]  # int32 [sequence, cache], above 0 in the future
        visible = slots[None, :] <= positions[:, None]
        self.bias = torch.where(visible, 0.0, MASKED)[None, None].to(past[0].dtype)  # [1, 1, sequence, cache]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for index, new in ((2 * layer, key), (2 * layer + 1, value)):
            self.present[index] = torch.where(self.written, new.index_select(2, self.rows), self.present[index])
        return self.present[2 * layer], self.present[2 * layer + 1]


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """``table`` [n] at int64 ``ids``. WebGPU has no 64-bit integers but for the indices of a Gather: a cast or a comparison of token
    ids would go to the CPU."""
    return embedding(ids, table[:, None]).squeeze(-1)


def attended(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """An int64 mask of 1 and 0 as numbers of ``dtype``."""
    return lookup(torch.arange(2, dtype=torch.int32, device=attention_mask.device).to(dtype), attention_mask)


def mask_bias(weights: Tensor) -> Tensor:
    """[batch, keys] of 1 and 0 as [batch, 1, 1, keys] of 0 and a score that does not count."""
    return (1 - weights)[:, None, None, :] * MASKED


def cache_names(layers: int, kind: str) -> list[str]:
    """``past.0.key, past.0.value, past.1.key, ...`` for ``kind`` past."""
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def decoder_graph(
    model: nn.Module,
    function: Callable[..., Any],
    generation: Generation,
    prompt: np.ndarray,
    cache: int,
    others: Mapping[str, np.ndarray] | None = None,
    axes: Mapping[str, Mapping[int, str]] | None = None,
) -> ExportGraph:
    """The decoder graph of ``prepared.py`` around ``function(model, input_ids, positions, *past, *others)``.

    ``prompt`` int64 [batch, sequence] is the example prefill, on a zeroed past; ``others`` holds what earlier graphs gave (keys and
    values of cross-attention, say) and inputs of the workload, ``axes`` the dynamic axes of those where it is not the batch alone.
    """
    past_names = cache_names(generation.layers, "past")
    shape = (prompt.shape[0], generation.key_value_heads, cache, generation.head_size)
    inputs = {"input_ids": prompt, "positions": np.arange(prompt.shape[1], dtype=np.int32)}
    inputs |= {name: np.zeros(shape, dtype=np.float32) for name in past_names}
    dynamic: dict[str, Mapping[int, str]] = {"input_ids": {0: "batch", 1: "sequence"}, "positions": {0: "sequence"}}
    dynamic |= {name: {0: "batch", 2: "cache"} for name in past_names}
    inputs |= others or {}
    dynamic |= {name: (axes or {}).get(name, {0: "batch"}) for name in others or {}}
    outputs = ("logits", *cache_names(generation.layers, "present"))
    return ExportGraph(Forward(model, function), inputs, outputs, dynamic)
