"""What the roofline misses, learned: a ridge regression of the logarithm of measured over predicted time on features without a scale.

It fades to nothing outside the hull of what it was trained on: by exp(-d^2), d the distance to the nearest training point in
standard deviations of the features. Plain arrays; no learning library is needed to predict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..lazy_numpy import np
from .fitting import Costs, Terms

RIDGE = 20.0  # rows' worth of belief that there is nothing to learn
NEAR = 1.0  # standard deviations within which a point counts as seen


def features(term: Terms, costs: Costs, batch_size: int) -> list[float]:
    """Shares of the predicted time (traffic, kernels, executions), the batch, and how long a kernel takes."""
    _, traffic, started, waited = term.shares(costs)
    return [traffic, started, waited, math.log(batch_size), math.log(term.seconds(costs) / max(1, term.kernels))]


def train(rows: Sequence[tuple[str, list[float], float]], used: bool = True) -> dict[str, Any]:
    """From rows of (engine, features, logarithm of measured over predicted): weights, scales and training points of each engine. Not
    ``used``: only the points, which say what is far from all that was measured; the weights are 0."""
    learned: dict[str, Any] = {}
    for engine in sorted({row[0] for row in rows}):
        x = np.array([row[1] for row in rows if row[0] == engine])
        y = np.array([row[2] for row in rows if row[0] == engine])
        centre, scale = x.mean(0), x.std(0) + 1e-3
        standard = (x - centre) / scale
        weights = np.linalg.solve(standard.T @ standard + RIDGE * np.eye(x.shape[1]), standard.T @ (y - y.mean()))
        weights = weights if used else np.zeros_like(weights)
        learned[engine] = {
            "centre": centre.tolist(),
            "scale": scale.tolist(),
            "weights": weights.tolist(),
            "points": np.unique(standard.round(2), axis=0).tolist(),
        }
    return learned


def correction(learned: Mapping[str, Any], engine: str, given: Sequence[float]) -> tuple[float, float]:
    """(logarithm to add, share of it that was kept): the share is 1 among the training points, 0 far outside, and 0 for an engine that
    nothing was learned of."""
    own = learned.get(engine)
    if own is None:
        return 0.0, 0.0
    standard = [(value - centre) / scale for value, centre, scale in zip(given, own["centre"], own["scale"], strict=True)]
    distance = min(math.dist(point, standard) for point in own["points"]) / math.sqrt(len(standard))
    kept = math.exp(-(max(0.0, distance - NEAR) ** 2))
    return sum(value * weight for value, weight in zip(standard, own["weights"], strict=True)) * kept, kept
