"""From scores to a choice: the objective's order, the Pareto set, what would decide between the best, and the nearest to a missed limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import UserError
from ..predict.prediction import Interval
from .request import Request
from .selection import Score

FIELDS = {
    "latency": "latency_ms",
    "throughput": "throughput_per_s",
    "memory": "memory_bytes",
    "energy": "energy_j",
    "cost": "cost_per_million",
}
UNITS = {"latency": "ms", "throughput": "items/s", "memory": "GB", "energy": "J", "cost": "per million items"}


def figure(score: Score, objective: str) -> Interval | None:
    return getattr(score, FIELDS[objective])


def loss(score: Score, objective: str) -> float:
    """Smaller is better; infinite where the figure is not known."""
    found = figure(score, objective)
    if found is None:
        return float("inf")
    return -found.value if objective == "throughput" else found.value


def ordered(scores: Sequence[Score], objective: str) -> list[Score]:
    """The best first. Software adapters come last whatever they promise: they are no GPU. Ties go to less memory."""
    return sorted(scores, key=lambda score: (score.place.software_adapter, loss(score, objective), loss(score, "memory")))


def with_pareto(scores: Sequence[Score], objectives: Sequence[str]) -> list[Score]:
    """The scores, each marked if no other is at least as good in every objective and better in one. Software adapters are left out."""

    def losses(score: Score) -> tuple[float, ...]:
        return tuple(loss(score, objective) for objective in objectives)

    real = [score for score in scores if not score.place.software_adapter and loss(score, "latency") < float("inf")]

    def beaten(score: Score) -> bool:
        own = losses(score)
        return any(
            losses(other) != own and all(theirs <= mine for theirs, mine in zip(losses(other), own, strict=True))
            for other in real
        )

    return [replace(score, pareto=score in real and not beaten(score)) for score in scores]


def undecided(scores: Sequence[Score], objective: str) -> list[Score]:
    """Those after the first whose interval overlaps the first's: which is best is not known."""
    first = figure(scores[0], objective) if scores else None
    if first is None:
        return []
    rivals = []
    for score in scores[1:]:
        found = figure(score, objective)
        if found is not None and found.low <= first.high and first.low <= found.high and not score.place.software_adapter:
            rivals.append(score)
    return rivals


def within_limit(scores: Sequence[Score], limit_ms: float) -> list[Score]:
    """The scores with the limit on latency as part of what is feasible."""
    kept = []
    for score in scores:
        if not score.feasible:
            kept.append(score)
        elif score.latency_ms is None:
            kept.append(replace(score, feasible=False, reason="Its latency is not known, so the limit cannot be checked."))
        elif score.latency_ms.value > limit_ms:
            reason = f"Its latency, {score.latency_ms.value:,.1f} ms, is above the limit of {limit_ms:g} ms."
            kept.append(replace(score, feasible=False, reason=reason, shortfall=("latency_slo_ms", score.latency_ms.value)))
        elif score.latency_ms.high > limit_ms:
            more = f"It may miss the limit of {limit_ms:g} ms: the interval goes up to {score.latency_ms.high:,.1f} ms."
            kept.append(replace(score, reasons=(*score.reasons, more)))
        else:
            kept.append(score)
    return kept


def nothing_fits(scores: Sequence[Score], request: Request) -> UserError:
    """The error when no candidate is feasible: the nearest that would be, and by how much the limit misses it."""
    limits = {"max_memory_gb": request.max_memory_gb, "latency_slo_ms": request.latency_slo_ms}
    for name, unit in (("latency_slo_ms", "ms"), ("max_memory_gb", "GB")):
        missed = [score for score in scores if score.shortfall is not None and score.shortfall[0] == name]
        if not missed:
            continue
        nearest = min(missed, key=lambda score: score.shortfall[1] if score.shortfall else 0.0)
        assert nearest.shortfall is not None
        needed, limit = nearest.shortfall[1], limits[name]
        if limit is None:  # the device's own memory
            has = (nearest.place.memory_bytes or 0) / 1e9
            return UserError(
                f"{request.model} fits nowhere here: the nearest is {nearest.label}, which needs {needed:,.1f} GB of {has:,.1f} GB; "
                "name larger hardware with available_hardware, or a smaller batch, length or precision."
            )
        return UserError(
            f"Nothing meets {name}={limit:g}: the nearest is {nearest.label} with {needed:,.1f} {unit}, "
            f"{needed - limit:,.1f} {unit} more than the limit."
        )
    first = {score.reason: score.label for score in reversed(scores)}
    reasons = [f"{label}: {reason}" for reason, label in reversed(first.items())][:3]
    return UserError(f"{request.model} runs on none of the candidates. " + " ".join(reasons))
