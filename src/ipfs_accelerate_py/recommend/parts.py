"""The parts of a model in different places of one machine: an encoder or a vision tower in one, the decoder in another.

The time is that of both parts and of the tensor between them, which is copied at rates that probes measured. Nothing has run so: ``bench``
and ``run`` keep a model in one place, so this is always a prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, Protocol

from ..errors import UnavailableError, UserError
from ..graph import ModelCounts, ModelDescription, count
from ..graph.parts import boundary_bytes, parts_of
from ..predict.ceilings import Ceilings
from ..predict.prediction import REGIMES, Interval, Prediction
from . import inference, memory
from .places import Place
from .request import Request
from .selection import Part, Score

# Of a page the way to Python is not probed, and a tensor would go through it.
NATIVE = ("cpu", "openvino", "cuda", "rocm", "mps")
OBJECTIVES = ("latency", "throughput")
NOT_COUNTED = "It is not known of parts in two places."


class Knows(Protocol):
    def predict(self, description: ModelDescription, **where: Any) -> Prediction: ...

    def ceilings(self, place: Place) -> Ceilings: ...


def better(
    description: ModelDescription,
    request: Request,
    places: Sequence[Place],
    precisions: Sequence[str],
    knowledge: Knows,
    whole: Sequence[Score],
) -> list[Score]:
    """The best placement of the parts, if it beats every place of the whole model by more than their intervals overlap, or if the whole
    model fits nowhere; otherwise nothing."""
    feasible = [score for score in whole if score.feasible and not score.place.software_adapter]
    if feasible and request.objective not in OBJECTIVES:
        return []
    if feasible and not all(score.latency_ms for score in feasible):
        return []
    found = [score for precision in precisions for score in _placements(description, request, places, precision, knowledge)]
    if not found:
        return []
    best = min(found, key=lambda score: score.latency_ms.value if score.latency_ms else float("inf"))
    least = min((score.latency_ms.low for score in feasible if score.latency_ms), default=float("inf"))
    return [best] if best.latency_ms and best.latency_ms.high < least else []


def _placements(
    description: ModelDescription,
    request: Request,
    places: Sequence[Place],
    precision: str,
    knowledge: Knows,
) -> Iterable[Score]:
    """Every feasible one at this precision."""
    shape = {"batch_size": request.batch_size, "sequence_length": request.sequence_length, "new_tokens": request.new_tokens}
    usable = [
        place
        for place in places
        if place.platform in NATIVE and not place.lacking and not inference.unsupported(description, request, place, precision)
    ]
    counts = count(description, precision=precision, **shape)  # type: ignore[arg-type]
    named = parts_of(counts)
    if not named or len(usable) < 2:
        return
    times: dict[tuple[str, Place], Prediction] = {}
    for name in named:
        for place in usable:
            try:
                times[name, place] = knowledge.predict(description, part=name, precision=precision, **_where(place), **shape)
            except (UnavailableError, UserError):
                continue  # nothing is known there, which the whole model's score says
    for pair in permutations(usable, len(named)):
        placed = dict(zip(named, pair, strict=True))
        if any((name, place) not in times for name, place in placed.items()):
            continue
        if len({place.machine for place in pair}) > 1 or not _fits(named, placed):
            continue
        between_s = copy_s(boundary_bytes(counts), *((place, knowledge.ceilings(place)) for place in pair))
        if between_s is not None:
            yield _score(request, precision, counts, placed, times, between_s)


def _where(place: Place) -> dict[str, Any]:
    names = ("platform", "engine", "device", "browser", "machine")
    return {name: getattr(place, name) for name in names} | {"mode": "inference", "software_adapter": place.software_adapter}


def _fits(named: Mapping[str, ModelCounts], placed: Mapping[str, Place]) -> bool:
    """Each part in its device's memory, and those that share the host's together in that."""
    needs = {
        name: memory.inference_memory(named[name], place.engine, "device" if place.separate_memory else "host").total
        for name, place in placed.items()
    }
    shared = sum(needs[name] for name, place in placed.items() if not place.separate_memory)
    return all(
        place.memory_bytes is None or (needs[name] if place.separate_memory else shared) <= place.memory_bytes
        for name, place in placed.items()
    )


def copy_s(size: int, first: tuple[Place, Ceilings], second: tuple[Place, Ceilings]) -> float | None:
    """Seconds that ``size`` bytes take from one place to the other: out of a device with a memory of its own, once through the host's
    memory (read and written), into a device. None where a rate on the way was not measured."""
    seconds = 0.0
    for (place, ceilings), rate in ((first, first[1].copy_from_device), (second, second[1].copy_to_device)):
        if place.separate_memory:
            if rate is None:
                return None
            seconds += size / rate
        elif ceilings.source != "probe":
            return None
        else:
            seconds += size / ceilings.bytes_per_s(size)
    return seconds


def _score(
    request: Request,
    precision: str,
    counts: ModelCounts,
    placed: Mapping[str, Place],
    times: Mapping[tuple[str, Place], Prediction],
    between_s: float,
) -> Score:
    found = [times[name, place] for name, place in placed.items()]
    latency = _sum([each.latency_ms for each in found], 1000 * between_s)
    parts = tuple(
        Part(name=name, place=place, latency_ms=each.latency_ms)
        for (name, place), each in zip(placed.items(), found, strict=True)
    )
    told = (
        f"Parts in two places, predicted: {' and '.join(f'{part.label} {part.latency_ms.value:,.3g} ms' for part in parts)}, and "
        f"{1000 * between_s:.2g} ms to copy {boundary_bytes(counts) / 1e6:,.3g} MB between them at rates that were probed.",
        "No launch ran it so: 'bench' and 'run' keep a model in one place, and each part is a graph of its own in the export.",
    )
    return Score(
        place=parts[-1].place,
        precision=precision,
        feasible=True,
        latency_ms=latency,
        throughput_per_s=latency.inverse(1000 * request.batch_size),
        memory_bytes=_sum([each.memory_bytes for each in found]),
        source=max((each.regime for each in found), key=REGIMES.index),
        provenance="predicted",
        reasons=told,
        unknown={"energy": NOT_COUNTED, "cost": NOT_COUNTED},
        parts=parts,
    )


def _sum(intervals: Sequence[Interval], more: float = 0.0) -> Interval:
    """Bounds are added too: the errors of two predictions of one model go together."""
    value, low, high = (sum(getattr(each, name) for each in intervals) + more for name in ("value", "low", "high"))
    return Interval(value, low, high)
