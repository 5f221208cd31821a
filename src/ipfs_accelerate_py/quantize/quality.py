"""Perplexity of a decoder on a text, one layer in memory at a time, with float or quantised weights and key-value cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import architecture
from .calibration import LayerStream, Read
from .kv import FOLD, CacheFormat, folded_keys, folded_values

if TYPE_CHECKING:
    import torch

CACHE_ATTENTION = "quantised_cache_reference"
HEAD_TOKENS = 1024  # at a time, as the logits of a large vocabulary are


@dataclass(frozen=True)
class Quality:
    """``nats`` float64 [windows]: the mean negative log-likelihood of each window's tokens after its first ``skipped`` ones."""

    nats: np.ndarray
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(float(self.nats.mean()))


def perplexity(
    config: Mapping[str, Any],
    windows: np.ndarray,
    read: Read,
    device: str = "cpu",
    cache: CacheFormat | None = None,
    skipped: int = 1,
    on_layer: Callable[[int], None] = lambda layer: None,
) -> Quality:
    """Of ``windows`` int64 [windows, length], with the weights that ``read(name)`` gives (``Source.read``, ``QuantizedFolder.read``).

    With a ``cache`` every query sees what that cache would hold when it comes: folded tokens decoded, recent ones float.
    """
    import torch

    attention = "sdpa" if cache is None else _registered(cache)
    hidden, norm, output = _final(config, windows, read, device, attention, on_layer)
    targets = torch.from_numpy(windows[:, skipped:]).to(device)
    nats = []
    with torch.inference_mode():
        for states, labels in zip(hidden, targets, strict=True):
            kept = norm(states[skipped - 1 : -1].to(device))
            losses = [
                torch.nn.functional.cross_entropy((part @ output.T).float(), wanted, reduction="none")
                for part, wanted in zip(kept.split(HEAD_TOKENS), labels.split(HEAD_TOKENS), strict=True)
            ]
            nats.append(float(torch.cat(losses).double().mean()))
    return Quality(np.array(nats), targets.numel())


@dataclass(frozen=True)
class Cosine:
    """Cosine similarity of the logits of two sets of weights over positions; ``tokens`` says on what."""

    mean: float
    least: float
    tokens: str


def logit_cosine(config: Mapping[str, Any], read: Read, other: Read, device: str = "cpu", seed: int = 0) -> Cosine:
    """How near the logits of two sets of weights are, on seeded random tokens: 4 windows of 64, every position."""
    import torch

    windows = np.random.default_rng(seed).integers(0, int(config["vocab_size"]), (4, 64))
    found = []
    for weights in (read, other):
        states, norm, output = _final(config, windows, weights, device, "sdpa")
        with torch.inference_mode():
            found.append(norm(states.to(device)).flatten(0, 1) @ output.T)
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=-1)
    return Cosine(float(cosine.mean()), float(cosine.min()), f"{windows.size} seeded random tokens")


def paired_ratio(quantised: Quality, reference: Quality) -> tuple[float, float, float]:
    """Perplexity against the reference's on the same windows, with a 95 % interval (Student's t over the windows' differences)."""
    from scipy.stats import t

    difference = quantised.nats - reference.nats
    middle = float(difference.mean())
    if len(difference) < 2:
        return math.exp(middle), 0.0, math.inf
    half = float(t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference)))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _final(
    config: Mapping[str, Any],
    windows: np.ndarray,
    read: Read,
    device: str,
    attention: str,
    on_layer: Callable[[int], None] = lambda layer: None,
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """States after the last layer [windows, length, hidden_size], the norm that follows, and the output matrix."""
    import torch

    stream = LayerStream(config, windows, read, device, attention)
    for layer in range(int(config["num_hidden_layers"])):
        on_layer(layer)
        stream.advance(stream.layer(layer, read))
    head = "lm_head.weight" if "lm_head.weight" in architecture.shapes(config) else "model.embed_tokens.weight"
    return stream.hidden, stream.norm(read), torch.from_numpy(read(head)).to(device)


def _registered(cache: CacheFormat) -> str:
    """Make the attention of a quantised cache known to transformers; its name."""
    from transformers import AttentionInterface

    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        return cached_attention(query, key, value, scaling, cache), None

    AttentionInterface.register(CACHE_ATTENTION, attention)
    return CACHE_ATTENTION


def cached_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, cache: CacheFormat
) -> torch.Tensor:
    """Causal attention [batch, tokens, heads, head_size] as a decoder with this cache computes it token by token.

    ``query`` [batch, heads, tokens, head_size], ``key`` and ``value`` [batch, key-value heads, tokens, head_size]. The query at
    position i sees the i + 1 tokens up to its own, of which ``cache.folded_tokens(i + 1)`` are folded.
    """
    import torch

    length = query.shape[2]
    whole = length // FOLD * FOLD

    def folded(values: torch.Tensor, fold: Callable[[np.ndarray, int], np.ndarray], bits: int) -> torch.Tensor:
        if bits == 16:
            return values
        decoded = torch.from_numpy(fold(values[:, :, :whole].float().cpu().numpy(), bits)).to(values)
        return torch.cat([decoded, values[:, :, whole:]], 2)

    repeats = query.shape[1] // key.shape[1]
    recent_keys, old_keys, recent_values, old_values = (
        part.repeat_interleave(repeats, 1)
        for part in (
            key,
            folded(key, folded_keys, cache.key_bits),
            value,
            folded(value, folded_values, cache.value_bits),
        )
    )
    positions = torch.arange(length, device=query.device)
    limits = torch.tensor([cache.folded_tokens(count) for count in range(1, length + 1)], device=query.device)
    old = positions[None, :] < limits[:, None]  # [queries, keys]
    scores = torch.where(old, query @ old_keys.transpose(2, 3), query @ recent_keys.transpose(2, 3)) * scaling
    scores = scores.masked_fill(positions[None, :] > positions[:, None], -torch.inf)
    weights = scores.softmax(-1)
    output = weights.masked_fill(~old, 0) @ old_values + weights.masked_fill(old, 0) @ recent_values
    return output.transpose(1, 2)
