"""``predict``: one model on one device or on all that are known, and how wrong the predictor has been."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ..errors import UserError
from ..graph import ModelDescription, describe
from ..predict.ceilings import from_datasheet
from ..predict.fitted import Fitted
from ..predict.prediction import Interval, Prediction
from ..predict.predictor import Predictor, is_called
from ..report.wording import rounded


@dataclass(frozen=True)
class Asked:
    """The options of the command, as they were given."""

    model: str
    platform: str
    engine: str | None
    device: str
    browser: str | None
    machine: str | None
    batch_size: int
    sequence_length: int | None
    new_tokens: int | None
    precision: str
    mode: str


def show(asked: Asked, stores: Sequence[Path], reference: bool, save: Path | None, *, as_json: bool) -> None:
    """Print the predictions; the fastest first where no platform was named."""
    if not asked.model:
        raise UserError("Name a model, such as bert-base-uncased; or --train to learn from stores again.")
    predictor = Predictor.from_stores(stores, reference=reference)
    description = describe(asked.model)
    predictions = _all(predictor, description, asked) if not asked.platform else [_one(predictor, description, asked)]
    if save is not None:
        from ..store.observed import add_predictions

        add_predictions(save, [row_of(each) for each in predictions if each.provenance == "predicted"])
    for warning in predictor.fitted.warnings:
        typer.echo(f"Note: {warning}", err=True)
    if as_json:
        answers = [each.to_dict() for each in predictions]
        print(json.dumps(answers[0] if asked.platform else answers, indent=1))
        return
    for each in predictions:
        alike = {other.machine for other in predictions if other.machine_name == each.machine_name}
        typer.echo(_told(each, detailed=bool(asked.platform), hashed=len(alike) > 1))


def train(stores: Sequence[Path], reference: bool, *, as_json: bool) -> None:
    """Learn from the stores, keep the result, and print the errors on what was left out."""
    from ..predict.cache import keep, train_now

    fitted = train_now(list(stores), reference)
    place = keep(list(stores), reference, fitted)
    if as_json:
        print(json.dumps({"version": fitted.version, "kept": str(place), **summary(fitted)}, indent=1))
        return
    trained_on = fitted.trained_on
    typer.echo(
        f"Predictor {fitted.version}, from {trained_on['cells']} measured cells of {trained_on['models']} models on "
        f"{trained_on['devices']} devices and {trained_on['probes']} probes."
    )
    for regime, errors in summary(fitted)["regimes"].items():
        typer.echo(f"  {regime}: {errors}")
    for warning in fitted.warnings:
        typer.echo(f"Note: {warning}", err=True)


def summary(fitted: Fitted) -> dict[str, Any]:
    """How wrong the predictor is on what was left out, by regime."""
    regimes = {}
    for name, width in fitted.widths.items():
        if not width.n:
            regimes[name] = "no such case to learn from"
            continue
        covered = width.error.get("coverage")
        told = "unknown, a single group" if covered is None else f"{covered:.0%}"
        regimes[name] = (
            f"median error {width.error['median_percent']:.0f} %, mean {width.error['mean_percent']:.0f} %, over {width.n} cells in "
            f"{width.groups} left-out groups; 90 % intervals cover {told}"
        )
    return {"trained_on": fitted.trained_on, "regimes": regimes, "warnings": list(fitted.warnings)}


def _one(predictor: Predictor, description: ModelDescription, asked: Asked) -> Prediction:
    """On the machine that was named; else on this one, where something is known of it; else on the one that is known best."""
    machine = asked.machine or _this_machine(predictor, asked)
    return predictor.predict(
        description,
        platform=asked.platform,
        engine=asked.engine,
        device=asked.device,
        browser=asked.browser,
        machine=machine,
        batch_size=asked.batch_size,
        sequence_length=asked.sequence_length,
        new_tokens=asked.new_tokens,
        precision=asked.precision,
        mode=asked.mode,
    )


def _this_machine(predictor: Predictor, asked: Asked) -> str | None:
    """This machine's hash, where the predictor knows it and another one with such a device, so that there is something to choose."""
    there = {
        each.machine
        for each in predictor.candidates()
        if (each.platform, each.device) == (asked.platform, asked.device)
        and asked.engine in (None, each.engine)
        and asked.browser in (None, each.browser)
    }
    if len(there) < 2:
        return None
    from ..measure.machine import fingerprint
    from ..spec import identity

    own = identity(fingerprint())
    return own if own in there else None


def _all(predictor: Predictor, description: ModelDescription, asked: Asked) -> list[Prediction]:
    places = {
        (each.machine, each.platform, each.engine, each.device, each.browser)
        for each in predictor.candidates()
        if asked.engine in (None, each.engine)
        and asked.browser in (None, each.browser)
        and (asked.machine is None or is_called(asked.machine, each.machine or "", each.name))
    }
    found = [
        predictor.predict(
            description,
            platform=platform,
            engine=engine,
            device=device,
            browser=browser,
            machine=machine,
            batch_size=asked.batch_size,
            sequence_length=asked.sequence_length,
            new_tokens=asked.new_tokens,
            precision=asked.precision,
            mode=asked.mode,
        )
        for machine, platform, engine, device, browser in sorted(places, key=str)
    ]
    if not found and asked.machine is not None and (known := from_datasheet(asked.machine)) is not None:
        raise UserError(f"{known.name} is known by its datasheet alone: say with which platform, for example --platform cuda.")
    if not found:
        raise UserError("No device that is known fits: leave options out, or name a platform and a device of the datasheets.")
    return sorted(found, key=lambda each: each.latency_ms.value)


def _range(interval: Interval, unit: str) -> str:
    return f"{rounded(interval.value)} {unit} [{rounded(interval.low)}, {rounded(interval.high)}]"


def _told(each: Prediction, detailed: bool, hashed: bool) -> str:
    """A line, or several. ``hashed``: machines of one name are told apart by the beginning of their hash."""
    place = " · ".join(part for part in (each.platform, each.browser or each.engine, each.device) if part != "default")
    regime = each.provenance if each.regime == each.provenance else f"{each.provenance}, {each.regime}"
    machine = "; ".join([each.machine_name, *([(each.machine or "")[:8]] if hashed else [])])
    software = ", a software adapter" if each.software_adapter else ""
    line = f"{each.model} on {place}{software} ({machine}), {each.precision}, {regime}: {_range(each.latency_ms, 'ms')}"
    if not detailed:
        return line
    lines = [line, f"  throughput {_range(each.throughput_per_s, 'items a second')}"]
    if each.time_to_first_token_ms:
        lines.append(f"  first token {_range(each.time_to_first_token_ms, 'ms')}")
    if each.time_per_output_token_ms:
        lines.append(f"  each further token {_range(each.time_per_output_token_ms, 'ms')}")
    memory = Interval(*(value / 1e6 for value in (each.memory_bytes.value, each.memory_bytes.low, each.memory_bytes.high)))
    lines.append(f"  peak memory, predicted: {_range(memory, 'MB')}")
    if each.energy_j:
        lines.append(f"  energy, {each.energy_provenance}: {_range(each.energy_j, 'J')} an iteration. {each.energy_reason}")
    else:
        lines.append(f"  energy: unavailable, because {each.energy_reason}")
    lines += [f"  {reason}" for reason in each.reasons]
    return "\n".join(lines)


def row_of(each: Prediction) -> dict[str, Any]:
    """The row of the ``prediction`` table."""
    same = (
        "model",
        "platform",
        "engine",
        "device",
        "browser",
        "batch_size",
        "sequence_length",
        "new_tokens",
        "precision",
        "mode",
    )
    return {
        **{name: getattr(each, name) for name in (*same, "provenance", "regime", "model_version")},
        "machine_hash": each.machine,
        "latency_ms": each.latency_ms.value,
        "latency_low_ms": each.latency_ms.low,
        "latency_high_ms": each.latency_ms.high,
        "level": each.latency_ms.level,
        "memory_bytes": each.memory_bytes.value,
        "reasons": list(each.reasons),
    }
