"""From evidence to a fitted predictor, and its own errors: each regime's, with whole cells, models and devices left out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import ModelCounts
from . import conformal, residual
from .ceilings import Ceilings, from_datasheet
from .fitted import Fitted, FittedDevice, Measured, Width, version_of
from .fitting import Costs, Terms, fit, rows_of, terms
from .memory import fit_memory
from .observations import DeviceKey, Evidence, Observation

# Where no device of an engine is known at all. Orders of magnitude only: an interval that rests on them is as wide as the errors say.
DEFAULTS = {
    "torch@gpu": Costs(1.5, 1.5, 12e-6, 100e-6),
    "torch@cpu": Costs(1.5, 1.5, 5e-6, 200e-6),
    "onnxruntime@cpu": Costs(1.5, 1.5, 2e-6, 100e-6),
    "openvino@cpu": Costs(1.3, 1.3, 2e-6, 100e-6),
    "onnxruntime-web@cpu": Costs(3.0, 3.0, 3e-6, 1e-3),
    "onnxruntime-web@gpu-chromium": Costs(3.0, 3.0, 30e-6, 3e-3),
}
GENERIC = Costs(2.0, 2.0, 10e-6, 1e-3)
# How far, in the logarithm, a device may lie from its engine's prior, and a model on it from the device. Ceilings that are known are not
# far from what engines reach; nominal ones are but a start.
DEVICE_SPREAD, NOMINAL_SPREAD, MODEL_SPREAD = (0.3, 0.3, 1.2, 1.5), (0.7, 0.7, 1.2, 1.5), (0.15, 0.15, 0.3, 0.3)
# Caches are a few times as fast as memory: what fits into them moves faster.
_CACHES = ((1e6, 6e10), (3e7, 3e10), (2e8, 1.5e10))
NOMINAL_CPU = Ceilings("nominal", "a processor that was not probed", {"float32": ((1.0, 1e11),)}, _CACHES)
NOMINAL_SOFTWARE = Ceilings("nominal", "a software adapter that was not probed", {"float32": ((1.0, 1e9),)}, ((1.0, 1e9),))
GPU_PLATFORMS = ("cuda", "rocm", "mps", "webgpu")
DEAR_S = 1e-9


def group_of(platform: str, engine: str, browser: str | None = None, software_adapter: bool = False) -> str:
    """What shares a prior: an engine on GPUs, or on processors. On WebGPU also the family of browsers, whose waits for a readback differ
    by far; software adapters are a kind of their own."""
    if software_adapter:
        return f"{engine}@software"
    family = ""
    if platform == "webgpu" and browser:
        family = "-firefox" if "firefox" in browser else "-safari" if browser in ("safari", "webkit") else "-chromium"
    return f"{engine}@{'gpu' if platform in GPU_PLATFORMS else 'cpu'}{family}"


def ceilings_of(key: DeviceKey, evidence: Evidence, software_adapter: bool, probed: bool = True) -> Ceilings:
    """The probe's, else the datasheet's of the machine's GPU or processor, else nominal ones, which the fit corrects."""
    if probed and key.text in evidence.probes:
        return evidence.probes[key.text]
    if software_adapter:
        return NOMINAL_SOFTWARE
    facts = evidence.machines.get(key.machine, {})
    names = [gpu["name"] for gpu in facts.get("gpus") or [] if gpu.get("name")]
    if key.platform not in GPU_PLATFORMS:
        names = [facts.get("cpu_model") or ""]
    return next((found for name in names if (found := from_datasheet(name))), NOMINAL_CPU)


def machine_name(facts: Mapping[str, Any], platform: str) -> str:
    """For people: the GPU of a GPU platform, otherwise the processor and its number of cores."""
    gpus = [str(gpu["name"]) for gpu in facts.get("gpus") or [] if gpu.get("name")]
    if platform in GPU_PLATFORMS and gpus:
        return gpus[0]
    return f"{facts.get('cpu_model') or 'unknown processor'}, {facts.get('logical_cpus') or '?'} CPUs"


@dataclass(frozen=True)
class Cell:
    """An observation with its terms at its device's ceilings."""

    observation: Observation
    terms: dict[str, Terms]
    group: str
    source: str  # of the ceilings

    @property
    def key(self) -> str:
        return self.observation.key.text

    @property
    def rows(self) -> list[tuple[Terms, float, float]]:
        return rows_of(self.terms, self.observation.ms)


def cells_of(evidence: Evidence, probed: bool = True) -> list[Cell]:
    """All observations, ready to fit. ``probed`` False: as if no device had been probed."""
    found = []
    for each in evidence.observations:
        ceilings = ceilings_of(each.key, evidence, each.software_adapter, probed)
        group = group_of(each.key.platform, each.key.engine, each.key.browser, each.software_adapter)
        found.append(Cell(each, terms(each.counts, ceilings, each.key.engine, each.precision), group, ceilings.source))
    return found


@dataclass(frozen=True)
class Knowledge:
    """Costs of engines, devices and models on devices, and the residual, all from the cells that were given."""

    priors: dict[str, Costs]
    devices: dict[str, Costs]
    models: dict[tuple[str, str], Costs]
    residual: dict[str, Any]


def learn(cells: Sequence[Cell], ceilings: Mapping[str, Ceilings], corrected: bool) -> Knowledge:
    """Engines from their devices, devices from their models; each level is the prior of the next. ``corrected``: with the residual."""
    of_device: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        of_device[cell.key].append(cell)
    rough = {key: _fit_device(own, _start(own[0].group, ceilings.get(key))) for key, own in of_device.items()}
    priors = {}
    for group in sorted({cell.group for cell in cells}):
        known = [rough[key].logs for key, own in of_device.items() if own[0].group == group]
        priors[group] = Costs.of(np.mean(known, axis=0))
    devices = {key: _fit_device(own, with_probe(priors[own[0].group], ceilings.get(key))) for key, own in of_device.items()}
    models = {}
    for key, own in of_device.items():
        for model in {cell.observation.model for cell in own}:
            fitting = [row for cell in own if cell.observation.model == model for row in cell.rows]
            models[key, model] = fit(fitting, devices[key], MODEL_SPREAD)
    missed = [
        (
            cell.observation.key.engine,
            residual.features(cell.terms["total"], devices[cell.key], cell.observation.batch_size),
            math.log(cell.observation.ms["total"] / 1000 / cell.terms["total"].seconds(devices[cell.key])),
        )
        for cell in cells
    ]
    return Knowledge(priors, devices, models, residual.train(missed, corrected))


def residual_helps(cells: Sequence[Cell], ceilings: Mapping[str, Ceilings]) -> bool:
    """Whether models that were left out are predicted better with the residual than without: it must earn its place."""
    with_it, without = (np.abs([error for _, error in _new_models(cells, ceilings, used)]) for used in (True, False))
    return bool(len(with_it) and with_it.mean() < without.mean())


def _start(group: str, ceilings: Ceilings | None) -> Costs:
    return with_probe(DEFAULTS.get(group, GENERIC), ceilings)


def with_probe(prior: Costs, ceilings: Ceilings | None) -> Costs:
    """An engine's prior with what a probe measured of the device: starting a kernel, and an execution with its readback."""
    if ceilings is None or ceilings.source != "probe":
        return prior
    kernel = ceilings.dispatch_s or prior.kernel_s
    return replace(prior, kernel_s=max(kernel, DEAR_S), execution_s=max(ceilings.execution_s or prior.execution_s, DEAR_S))


def _fit_device(cells: Sequence[Cell], prior: Costs) -> Costs:
    spread = NOMINAL_SPREAD if cells and cells[0].source == "nominal" else DEVICE_SPREAD
    return fit([row for cell in cells for row in cell.rows], prior, spread)


def seconds(knowledge: Knowledge, cell: Cell, costs: Costs) -> float:
    """The total time that ``costs`` and the residual predict of a cell."""
    term = cell.terms["total"]
    given = residual.features(term, costs, cell.observation.batch_size)
    added, _ = residual.correction(knowledge.residual, cell.observation.key.engine, given)
    return term.seconds(costs) * math.exp(added)


Error = tuple[str, float]


def left_out(evidence: Evidence) -> dict[str, list[Error]]:
    """(group, logarithm of measured over predicted) of every cell, by regime, each predicted by what never saw its group.

    ``interpolated`` leaves a cell out, ``new model`` a whole model of every device, ``new device`` a device but its probe, and
    ``datasheet`` the probes too. ``software adapter`` has the errors of new models on those, which say nothing of GPUs.
    """
    cells = cells_of(evidence)
    ceilings = {cell.key: ceilings_of(cell.observation.key, evidence, cell.observation.software_adapter) for cell in cells}
    errors: dict[str, list[Error]] = {"interpolated": []}

    corrected = residual_helps(cells, ceilings)
    whole = learn(cells, ceilings, corrected)
    for index, cell in enumerate(cells):
        others = cells[:index] + cells[index + 1 :]
        same = [each for each in others if each.key == cell.key and each.observation.model == cell.observation.model]
        if same and not cell.observation.software_adapter:
            device = _fit_device([each for each in others if each.key == cell.key], whole.priors[cell.group])
            costs = fit([row for each in same for row in each.rows], device, MODEL_SPREAD)
            errors["interpolated"].append(
                (f"{cell.key} {cell.observation.model}", _error(cell, cell.terms["total"].seconds(costs)))
            )
    errors["new model"] = _new_models(cells, ceilings, corrected)
    errors["software adapter"] = _new_models(cells, ceilings, corrected, software=True)
    errors["new device"] = _new_devices(cells, ceilings, corrected, lambda key: ceilings[key].source == "probe")
    plain = cells_of(evidence, probed=False)
    sheets = {cell.key: ceilings_of(cell.observation.key, evidence, False, probed=False) for cell in plain}
    errors["datasheet"] = _new_devices(plain, sheets, corrected, lambda key: sheets[key].source == "datasheet")
    return errors


def _error(cell: Cell, predicted_s: float) -> float:
    return math.log(cell.observation.ms["total"] / 1000 / predicted_s)


def _new_models(
    cells: Sequence[Cell], ceilings: Mapping[str, Ceilings], corrected: bool, software: bool = False
) -> list[Error]:
    errors: list[Error] = []
    for model, out, rest in _splits(cells, lambda cell: str(cell.observation.description.model_class)):
        known = learn(rest, ceilings, corrected) if rest else None
        for cell in out:
            if known and cell.key in known.devices and cell.observation.software_adapter == software:
                errors.append((model, _error(cell, seconds(known, cell, known.devices[cell.key]))))
    return errors


def _new_devices(
    cells: Sequence[Cell], ceilings: Mapping[str, Ceilings], corrected: bool, wanted: Callable[[str], bool]
) -> list[Error]:
    errors: list[Error] = []
    for device, out, rest in _splits(cells, lambda cell: cell.key):
        if not rest or not wanted(device) or out[0].observation.software_adapter:
            continue
        known = learn(rest, ceilings, corrected)
        group = out[0].group
        if group not in known.priors and group not in DEFAULTS:
            continue  # of this kind nothing else is known: not even a guess, and the predictor says so
        costs = with_probe(known.priors.get(group) or DEFAULTS.get(group, GENERIC), ceilings.get(device))
        for cell in out:
            errors.append((device, _error(cell, seconds(known, cell, costs))))
    return errors


def _splits(cells: Sequence[Cell], name: Callable[[Cell], str]) -> Iterable[tuple[str, list[Cell], list[Cell]]]:
    for group in sorted({name(cell) for cell in cells}):
        yield group, [cell for cell in cells if name(cell) == group], [cell for cell in cells if name(cell) != group]


def train(evidence: Evidence) -> Fitted:
    """The predictor of this evidence, with the widths that its own left-out errors give."""
    cells = cells_of(evidence)
    ceilings = {cell.key: ceilings_of(cell.observation.key, evidence, cell.observation.software_adapter) for cell in cells}
    for key, probe in evidence.probes.items():
        ceilings.setdefault(key, probe)
    known = learn(cells, ceilings, residual_helps(cells, ceilings))
    widths = {}
    for regime, errors in left_out(evidence).items():
        covered = conformal.coverage(errors) if errors else math.nan
        found = conformal.width(errors)
        widths[regime] = replace(found, error={**found.error, "coverage": None if math.isnan(covered) else covered})  # type: ignore[dict-item]
    widths = _never_narrower(widths)
    devices = {}
    for key in sorted(ceilings):
        own = [cell for cell in cells if cell.key == key]
        devices[key] = _device(key, own, ceilings[key], known, evidence)
    memory = memory_errors(cells)
    summary = {
        "cells": len(cells),
        "devices": len({cell.key for cell in cells}),
        "models": len({cell.observation.model for cell in cells}),
        "probes": len(evidence.probes),
    }
    return Fitted(
        version=version_of([[cell.key, cell.observation.model, cell.observation.ms] for cell in cells]),
        trained_on=summary,
        devices=devices,
        priors=known.priors,
        residual=known.residual,
        widths=widths,
        memory_width=conformal.width(memory),
        warnings=tuple(evidence.warnings),
    )


def _never_narrower(widths: dict[str, Width]) -> dict[str, Width]:
    """The less is known, the wider: a regime with few errors is not believed to be surer than the one before it."""
    least = 0.0
    for regime in ("interpolated", "new model", "new device", "datasheet"):
        least = max(least, widths[regime].half_width if widths[regime].n else least)
        widths[regime] = replace(widths[regime], half_width=least)
    return widths


def _device(key: str, own: Sequence[Cell], ceilings: Ceilings, known: Knowledge, evidence: Evidence) -> FittedDevice:
    parsed = DeviceKey.of(key)
    software = any(cell.observation.software_adapter for cell in own)
    prior = known.priors.get(group_of(parsed.platform, parsed.engine, parsed.browser, software), GENERIC)
    return FittedDevice(
        key=key,
        name=machine_name(evidence.machines.get(parsed.machine, {}), parsed.platform),
        ceilings=ceilings,
        costs=known.devices.get(key) or with_probe(prior, ceilings),
        models={model: costs for (device, model), costs in known.models.items() if device == key},
        cells=tuple(_measured(cell.observation) for cell in own),
        memory=fit_memory([_footprint(cell.observation) for cell in own]),
        software_adapter=software,
    )


def _measured(each: Observation) -> Measured:
    return Measured(
        model=each.model,
        batch_size=each.batch_size,
        sequence_length=each.sequence_length,
        new_tokens=each.new_tokens,
        precision=each.precision,
        mode=each.mode,
        ms=each.ms,
        low_ms=each.low_ms,
        high_ms=each.high_ms,
        launches=each.launches,
    )


def memory_errors(cells: Sequence[Cell]) -> list[Error]:
    """(model, logarithm of measured over predicted peak), each model predicted from the others on the same device."""
    errors = []
    for cell in cells:
        each = cell.observation
        others = [other.observation for other in cells if other.key == cell.key and other.observation.model != each.model]
        fitted = fit_memory([_footprint(other) for other in others])
        if each.peak_bytes and fitted:
            errors.append((each.model, math.log(each.peak_bytes / fitted.peak(each.counts))))
    return errors


def _footprint(each: Observation) -> tuple[ModelCounts, float | None]:
    return each.counts, each.peak_bytes
