"""``select_optimal_hardware``: where a model should run, or how its training should be spread, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UnavailableError, UserError
from ..graph import ModelDescription, describe
from ..models.registry import model_class
from ..report.wording import rounded
from . import choose, inference, parts, training
from .configuration import configuration, default_kind
from .knowledge import Knowledge
from .places import HERE, Place, chosen, here, limited
from .prices import Price, comparable, table
from .request import Request
from .selection import HardwareSelection, Score

FALLBACKS = 3
TO_MEASURE = 3


def select_optimal_hardware(
    model_name: str,
    *,
    model_family: str | None = None,
    batch_size: int = 1,
    sequence_length: int | None = None,
    mode: str = "inference",
    precision: str | None = None,
    task: str | None = None,
    distributed: bool = False,
    gpu_count: int = 1,
    max_memory_gb: float | None = None,
    available_hardware: Sequence[str] | None = None,
    objective: str = "latency",
    latency_slo_ms: float | None = None,
    store: str | Path | None = None,
    prices: str | Path | None = None,
    configuration_kind: str | None = None,
) -> HardwareSelection:
    """The place for a model by this objective, from what fits: this machine's own places, or those that ``available_hardware`` names
    (platforms, browsers or devices, of this machine or known from measurements and datasheets).

    ``batch_size`` is of one inference; in training it is what each device contributes to a step. ``max_memory_gb`` (10^9 bytes) limits each
    device. ``latency_slo_ms`` is a limit on the latency under any objective. ``store`` is a store whose measurements count beside the
    shipped ones; its prices count for the objective cost, or those of the CSV ``prices``. Without ``precision``, widths of 16 bits and
    more are compared; 8 and 4 bits are taken only where nothing else fits. Raises UserError, one sentence, for a mistake and for limits
    that nothing meets.
    """
    request = Request(
        model=str(model_name),
        family=model_family,
        batch_size=batch_size,
        sequence_length=sequence_length,
        mode=mode,
        precision=precision,
        task=task,
        distributed=distributed,
        gpu_count=gpu_count,
        max_memory_gb=max_memory_gb,
        available_hardware=available_hardware,
        objective=objective,
        latency_slo_ms=latency_slo_ms,
    ).checked()
    description = describe(model_name)
    _agrees(request, description)
    knowledge = Knowledge.of(store)
    known = table(Path(prices) if prices else None, Path(store) if store else None)
    if objective == "cost":
        comparable(known)
    return select(description, request, knowledge, known, configuration_kind=configuration_kind)


def select(
    description: ModelDescription,
    request: Request,
    knowledge: Knowledge,
    prices: Sequence[Price] = (),
    *,
    own: Sequence[Place] | None = None,
    configuration_kind: str | None = None,
) -> HardwareSelection:
    """The choice from what is known. ``own`` are the places of this machine, found by its facts where they are not given."""
    places, notes = _places(request, knowledge, here() if own is None else own)
    places = [limited(place, request.max_memory_gb) for place in places]
    scored, more = _scored(description, request, places, knowledge, prices)
    feasible = [score for score in scored if score.feasible]
    if not feasible:
        raise choose.nothing_fits(scored, request)
    if all(choose.figure(score, request.objective) is None for score in feasible):
        why = next(
            (score.unknown[request.objective] for score in feasible if request.objective in score.unknown), "it is not known"
        )
        raise UserError(f"{request.objective} cannot be compared: {why.rstrip('.')}.")
    objectives = ["latency", "memory"] + [name for name in ("energy", "cost") if any(choose.figure(s, name) for s in feasible)]
    best = choose.with_pareto(choose.ordered(feasible, request.objective), objectives)
    primary, rivals = best[0], choose.undecided(best, request.objective)
    kind, text, note = _configuration(description, request, primary, configuration_kind)
    explanation = (*notes, *more, *_explanation(request, best, rivals), *note, *knowledge.notes)
    return HardwareSelection(
        model=description.name,
        model_family=description.family,
        parameter_count=description.parameters,
        mode=request.mode,
        objective=request.objective,
        primary_recommendation=primary,
        fallback_options=tuple(best[1 : 1 + FALLBACKS]),
        all_scores=(*best, *(score for score in scored if not score.feasible)),
        explanation=explanation,
        prediction_source=primary.source or "none",
        measure_next=_measure_next(description, request, primary, rivals),
        left_out=knowledge.left_out,
        configuration=text,
        configuration_kind=kind,
    )


def _agrees(request: Request, description: ModelDescription) -> None:
    """What was said of the model beside its name is checked against what it is."""
    if request.family is not None and description.family not in (request.family, "unknown"):
        raise UserError(f"{description.name} is of the family {description.family}, not {request.family}.")
    kind = model_class(description.model_class)
    if request.task is not None and kind is not None and request.task != kind.task:
        raise UserError(f"{description.name} is for {kind.task}, not for {request.task}.")


def _places(request: Request, knowledge: Knowledge, own: Sequence[Place]) -> tuple[list[Place], list[str]]:
    """Where to look, and what to say of that."""
    if request.available_hardware is not None:
        return chosen(request.available_hardware, own, knowledge.others()), []
    if request.gpu_count > 1 and not any(place.count >= request.gpu_count for place in own):
        others = [place for place in knowledge.others() if place.platform in ("cuda", "rocm")]
        note = (
            f"{HERE[0].upper()}{HERE[1:]} does not have {request.gpu_count} GPUs: the plan is for GPUs known from measurements and "
            "datasheets; name yours with available_hardware."
        )
        return [*own, *others], [note]
    return list(own), []


def _scored(
    description: ModelDescription,
    request: Request,
    places: Sequence[Place],
    knowledge: Knowledge,
    prices: Sequence[Price],
) -> tuple[list[Score], list[str]]:
    """All scores with the limit on latency applied, and what to say of the precisions."""
    rate = training.scores if request.mode == "training" else inference.scores

    def at(precisions: Sequence[str]) -> list[Score]:
        found = rate(description, request, places, precisions, knowledge, prices)
        if request.mode == "inference":
            found += parts.better(description, request, places, precisions, knowledge, found)
        return choose.within_limit(found, request.latency_slo_ms) if request.latency_slo_ms else found

    if request.precision is not None:
        return at([request.precision]), []
    if request.mode == "training":
        return at(["bfloat16", "float32"]), []
    wide = at(inference.FULL_PRECISIONS)
    if any(score.feasible for score in wide):
        return wide, []
    narrow = at(inference.ROUNDED_PRECISIONS)
    note = (
        "No precision of 16 bits or more meets the limits: weights are rounded to 8 or 4 bits, so check the output's quality."
    )
    return [*narrow, *wide], [note] if any(score.feasible for score in narrow) else []


def _explanation(request: Request, best: Sequence[Score], rivals: Sequence[Score]) -> list[str]:
    """Sentences: why the first is first, and how sure that is."""
    first, objective = best[0], request.objective
    said = [f"{first.label} has the best {objective}: {describe_figure(first, objective)}."]
    if len(best) > 1 and (after := choose.figure(best[1], objective)) is not None and first.place.software_adapter is False:
        before = choose.figure(first, objective)
        assert before is not None
        ratio = max(after.value, before.value) / max(min(after.value, before.value), 1e-12)
        said.append(f"The next is {best[1].label}: {describe_figure(best[1], objective)}, a ratio of {ratio:.2f}.")
    if rivals:
        names = "; ".join(score.label for score in rivals[:TO_MEASURE])
        said.append(f"That is not decided: the intervals of {names} overlap with it.")
    return [*said, *first.reasons]


def describe_figure(score: Score, objective: str) -> str:
    """The figure with its interval and its provenance."""
    found = choose.figure(score, objective)
    if found is None:
        return f"not known ({score.unknown.get(objective, 'no grounds')})"
    scale = 1e-9 if objective == "memory" else 1.0
    value, low, high = (each * scale for each in (found.value, found.low, found.high))
    provenance = {"energy": score.energy_provenance, "memory": score.memory_provenance}.get(objective, score.provenance)
    return f"{rounded(value)} [{rounded(low)}, {rounded(high)}] {choose.UNITS[objective]}, {provenance or 'by formula'}"


def _measure_next(description: ModelDescription, request: Request, primary: Score, rivals: Sequence[Score]) -> tuple[str, ...]:
    """The runs that would decide: the unmeasured ones among the first and its rivals, the likeliest winners first."""
    if not rivals or description.model_class is None or description.size in (None, "custom"):
        return ()
    wanted = [score for score in (primary, *rivals) if score.provenance != "measured"][:TO_MEASURE] or [primary, *rivals][
        :TO_MEASURE
    ]
    return tuple(_command(description, request, score) for score in wanted)


def _command(description: ModelDescription, request: Request, score: Score) -> str:
    place, layout = score.place, score.layout
    parts = [f"ipfs-accelerate bench --models {description.model_class} --size {description.size} --platforms {place.platform}"]
    parts.append(f"--engines {place.engine} --precisions {score.precision}")
    parts += [f"--browsers {place.browser}"] if place.browser else []
    batch = layout.micro_batch if layout else request.batch_size
    parts += [f"--batch-sizes {batch}"] if batch > 1 else []
    parts += [f"--sequence-lengths {request.sequence_length}"] if request.sequence_length else []
    parts += ["--modes training"] if request.mode == "training" else []
    return " ".join(parts) + ("" if place.here else f"   (on {place.description})")


def _configuration(
    description: ModelDescription, request: Request, primary: Score, kind: str | None
) -> tuple[str | None, str | None, list[str]]:
    """The kind and text of the configuration, and why there is none where that is so."""
    if primary.layout is None:
        if kind is not None:
            raise UserError("A configuration is written for training: ask for mode='training'.")
        return None, None, []
    wanted = kind or default_kind(primary.layout)
    try:
        return wanted, configuration(primary.layout, description, request.sequence_length, wanted), []
    except UnavailableError as error:
        if kind is not None:
            raise
        return None, None, [str(error)]
