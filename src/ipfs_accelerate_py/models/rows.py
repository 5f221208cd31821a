"""Seeded generators of example inputs, one for each item of a batch."""

from __future__ import annotations

from ..lazy_numpy import np


def row_generators(seed: int, count: int) -> list[np.random.Generator]:
    """One for each item: the first items of a batch are those of any larger one, and so is what a model makes of them."""
    return [np.random.default_rng([seed, row] if row else seed) for row in range(count)]
