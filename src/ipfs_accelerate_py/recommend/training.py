"""Scores of places for training: on each, the best of all layouts that its memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from ..errors import UnavailableError, UserError
from ..graph import ModelDescription
from ..graph.counting import lengths, within_limit
from ..models.registry import model_classes
from ..predict.prediction import Interval, Prediction
from .inference import Predicts, unsupported
from .layout import STRATEGIES, Layout, degrees, divisors
from .network import network
from .places import GPU_PLATFORMS, Place, host_memory_bytes
from .prices import HOW, Price, find, per_million
from .request import Request
from .selection import Score
from .stacks import Shape, shape_of
from .step_time import step_seconds
from .training_memory import TrainingMemory, training_memory

MEMORY_ERROR = 0.10  # of the formula, against torch's peaks (benchmarks/selection.py --activations)
LEAST_LENGTH = 8  # tokens
Sized = tuple[Layout, TrainingMemory]


def training_shape(description: ModelDescription, sequence_length: int | None) -> Shape:
    """UserError for a model that no training is planned for."""
    if description.graph is not None:
        raise UserError(f"{description.name} is a graph for inference: training needs a model class or a config.json.")
    sequence, _ = lengths(description, sequence_length, None)
    within_limit(description, sequence)
    return shape_of(description.model_class, description.config, description.parameters, sequence)


def scores(
    description: ModelDescription,
    request: Request,
    places: Sequence[Place],
    precisions: Sequence[str],
    predictor: Predicts,
    prices: Sequence[Price],
) -> list[Score]:
    """The best layout of each place at each precision, or why there is none."""
    shape = training_shape(description, request.sequence_length)

    @cache
    def sized(platform: str, precision: str) -> list[Sized]:
        """Every layout with its memory, which depends on no more than these."""
        return [
            (layout, training_memory(shape, layout, description.model_class, platform=platform))
            for layout in layouts(shape, request, precision, _least_batch(description))
        ]

    return [
        score(description, shape, request, place, precision, sized, predictor, prices)
        for place in places
        for precision in precisions
    ]


def score(
    description: ModelDescription,
    shape: Shape,
    request: Request,
    place: Place,
    precision: str,
    sized_for: Callable[[str, str], list[Sized]],
    predictor: Predicts,
    prices: Sequence[Price],
) -> Score:
    """One place at one precision."""
    common: dict[str, Any] = {"place": place, "precision": precision}
    reason = place.lacking or unsupported(description, request, place, precision) or _too_few(request, place)
    if reason:
        return Score(**common, feasible=False, reason=reason)
    sized = sized_for(place.platform, precision)
    limit = float("inf") if place.memory_bytes is None else place.memory_bytes
    fitting = [(layout, size) for layout, size in sized if size.peak <= limit and not layout.offload]
    host = host_memory_bytes() if place.here else float("inf")
    fitting = fitting or [each for each in sized if each[1].peak <= limit and each[1].host * request.gpu_count <= host]
    if not fitting:
        layout, size = min(sized, key=lambda each: each[1].peak)
        reason = (
            f"The leanest layout, {layout.label}, needs {size.peak / 1e9:,.1f} GB a device and there are {limit / 1e9:,.1f} GB."
        )
        return Score(
            **common,
            feasible=False,
            reason=reason,
            layout=layout,
            training_memory=size,
            shortfall=("max_memory_gb", size.peak / 1e9),
        )

    @cache
    def micro_step(micro_batch: int, sequence_length: int | None = request.sequence_length) -> Prediction | str:
        try:
            return predictor.predict(
                description,
                platform=place.platform,
                engine="torch",
                device=place.device,
                machine=place.machine,
                batch_size=micro_batch,
                sequence_length=sequence_length,
                precision=precision,
                mode="training",
            )
        except (UnavailableError, UserError) as error:
            return str(error)

    scored = []
    for layout, size in fitting:
        # Next to no work: what starting the kernels takes, which a tensor degree does not divide.
        least = micro_step(1, LEAST_LENGTH) if layout.tensor > 1 else ""
        micro = micro_step(layout.micro_batch)
        scored.append(_timed(common, request, shape, layout, size, micro, least, place, prices))
    return min(scored, key=lambda each: _preference(each, request.objective))


def _preference(score: Score, objective: str) -> tuple[float, ...]:
    """The objective first; what is within 2 % of it in time counts as equal, and then the simpler strategy is taken."""
    from .choose import loss

    assert score.layout is not None
    value = loss(score, objective)
    rounded = value if objective == "memory" or value in (0, float("inf")) else _steps_of_two_percent(value)
    return (
        rounded,
        score.layout.checkpointing,
        STRATEGIES.index(score.layout.strategy),
        score.layout.tensor * score.layout.pipeline,
        score.layout.accumulation,
    )


def _steps_of_two_percent(value: float) -> float:
    from math import copysign, log

    return copysign(round(log(abs(value)) / 0.02), value) if value > 0 else -round(log(-value) / 0.02)


def _timed(
    common: dict[str, Any],
    request: Request,
    shape: Shape,
    layout: Layout,
    size: TrainingMemory,
    micro: Prediction | str,
    least: Prediction | str,
    place: Place,
    prices: Sequence[Price],
) -> Score:
    memory = Interval(size.peak, size.peak * (1 - MEMORY_ERROR), size.peak * (1 + MEMORY_ERROR))
    known: dict[str, Any] = {**common, "feasible": True, "layout": layout, "training_memory": size, "memory_bytes": memory}
    if isinstance(micro, str):
        return Score(**known, unknown={"latency": micro, "throughput": micro, "cost": micro, "energy": micro})
    links = network(place, layout.devices)
    floor = 0.0 if isinstance(least, str) else min(1.0, least.latency_ms.value / micro.latency_ms.value)
    time = step_seconds(shape, layout, micro.latency_ms.scaled(1e-3), links, floor)
    throughput = time.total.inverse(request.batch_size * layout.devices)
    price = find(prices, place)
    unknown = {"energy": micro.energy_reason}
    if price is None:
        unknown["cost"] = f"There is no price of {place.platform}: {HOW}."
    reasons = list(micro.reasons) + ([price.said] if price else [])
    if layout.offload:
        total = size.host * layout.devices / 1e9
        reasons.append(f"Offloading keeps {total:,.0f} GB in the host's memory, which is checked on this machine only.")
    if links is not None:
        said = f"measured at {links.measured_at}" if links.source == "measured" else f"{links.source}: {links.device}"
        reasons.append(
            f"{time.communication.value / time.total.value:.0%} of a step is communication ({links.backend}, {said})."
        )
    alone = layout.devices == 1 and layout.accumulation == 1 and not layout.checkpointing and not layout.offload
    return Score(
        **known,
        latency_ms=time.total.scaled(1e3),
        throughput_per_s=throughput,
        cost_per_million=per_million(price, throughput, layout.devices) if price else None,
        source=micro.regime if alone or micro.regime != "measured" else "interpolated",
        provenance=micro.provenance if alone else "predicted",
        reasons=tuple(reasons),
        unknown=unknown,
    )


def layouts(shape: Shape, request: Request, precision: str, least_batch: int = 1) -> Iterator[Layout]:
    """Every layout for this request: a step has batch_size x gpu_count items, whatever the layout."""
    devices = request.gpu_count
    for base in degrees(shape, devices):
        items, rest = divmod(request.batch_size * devices, base.data)
        if rest:
            continue
        for micro in divisors(items):
            if micro < least_batch:
                continue
            for checkpointing in (False, True):
                one = replace(
                    base, micro_batch=micro, accumulation=items // micro, checkpointing=checkpointing, precision=precision
                )
                yield one
                if base.strategy == "fsdp" or base.zero_stage:
                    yield replace(one, offload=True)


def _least_batch(description: ModelDescription) -> int:
    return model_classes()[description.model_class].least_training_batch if description.model_class else 1


def _too_few(request: Request, place: Place) -> str:
    if request.gpu_count == 1:
        return ""
    if place.platform not in GPU_PLATFORMS:
        return f"gpu_count={request.gpu_count} asks for GPUs, and {place.platform} is none."
    if place.here and place.count < request.gpu_count:
        return f"This machine has {place.count} of the {request.gpu_count} GPUs."
    return ""
