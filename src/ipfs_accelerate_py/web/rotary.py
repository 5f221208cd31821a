"""Frequencies of rotary positions by a model's configuration, for engines that do not run transformers.

Su et al., 2021, https://arxiv.org/abs/2104.09864; YaRN: Peng et al., 2023, https://arxiv.org/abs/2309.00071; ``llama3`` is the scaling of
Llama 3.1 (Grattafiori et al., 2024, https://arxiv.org/abs/2407.21783).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError

KINDS = ("default", "linear", "llama3", "yarn")


def rotary_frequencies(config: Mapping[str, Any], head_size: int) -> tuple[np.ndarray, float]:
    """Inverse frequencies float64 [head_size / 2], and the factor that cosine and sine are multiplied with.

    Takes ``rope_parameters`` as well as the older ``rope_theta`` and ``rope_scaling``. UserError for a kind that depends on the
    sequence's length.
    """
    given = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = given.get("rope_type") or given.get("type") or "default"
    theta = float(given.get("rope_theta") or config.get("rope_theta") or 10000.0)
    plain = theta ** -(np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    if kind == "default":
        return plain, 1.0
    if kind not in KINDS:
        raise UserError(f"Rotary positions of type '{kind}' are not supported by the WGSL engine (it has {', '.join(KINDS)}).")
    factor = float(given["factor"])
    if kind == "linear":
        return plain / factor, 1.0
    original = float(given.get("original_max_position_embeddings") or config["max_position_embeddings"])
    if kind == "llama3":
        return _llama3(plain, factor, original, float(given["low_freq_factor"]), float(given["high_freq_factor"])), 1.0
    return _yarn(plain, factor, original, theta, given)


def _llama3(plain: np.ndarray, factor: float, original: float, low: float, high: float) -> np.ndarray:
    """Long waves are stretched, short ones kept, those between interpolated."""
    turns = original * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * plain / factor + kept * plain


def _yarn(
    plain: np.ndarray, factor: float, original: float, theta: float, given: Mapping[str, Any]
) -> tuple[np.ndarray, float]:
    size = 2 * len(plain)

    def channel(turns: float) -> float:
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(float(given.get("beta_fast") or 32)), channel(float(given.get("beta_slow") or 1))
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    stretched = np.clip((np.arange(len(plain)) - low) / max(high - low, 0.001), 0.0, 1.0)

    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = given.get("attention_factor")
    if attention is None:
        whole, part = given.get("mscale"), given.get("mscale_all_dim")
        attention = magnitude(whole) / magnitude(part) if whole and part else magnitude(1.0)
    return stretched * plain / factor + (1 - stretched) * plain, float(attention)
