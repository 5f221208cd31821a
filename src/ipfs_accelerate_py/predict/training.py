"""From evidence to a fitted predictor, with the widths that its own left-out errors give."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from . import conformal
from .ceilings import Ceilings
from .evaluation import footprints, left_out, memory_errors, residual_helps
from .fitted import Fitted, FittedDevice, Measured, Width, version_of
from .kinds import ceilings_of, group_of, machine_name, prior_of
from .learning import Cell, Knowledge, cells_of, learn
from .memory import fit_memory
from .observations import DeviceKey, Evidence, Observation


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
        version=version_of(
            [
                [[cell.key, cell.observation.model, cell.observation.ms] for cell in cells],
                {key: probe.to_dict() for key, probe in evidence.probes.items()},
            ]
        ),
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
    software = ceilings.software_adapter or any(cell.observation.software_adapter for cell in own)
    prior = prior_of(known.priors, group_of(parsed.platform, parsed.engine, parsed.browser, software), ceilings)
    return FittedDevice(
        key=key,
        name=machine_name(evidence.machines.get(parsed.machine, {}), parsed.platform),
        ceilings=ceilings,
        costs=known.devices.get(key) or prior,
        models={model: costs for (device, model), costs in known.models.items() if device == key},
        cells=tuple(_measured(cell.observation) for cell in own),
        memory=fit_memory(footprints(cell.observation for cell in own), parsed.platform, parsed.engine),
        software_adapter=software,
        power_w=power([cell.observation for cell in own]),
    )


def power(measured: Sequence[Observation]) -> tuple[float, float] | None:
    """Watts while models ran, and the largest distance of a cell from them in the logarithm; None where no energy was counted, or of one
    cell alone, which says nothing of others."""
    watts = [statistics.median(each.energy_j) / (each.ms["total"] / 1000) for each in measured if each.energy_j]
    if len(watts) < 2:
        return None
    middle = statistics.median(watts)
    return middle, max(abs(math.log(each / middle)) for each in watts)


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
        energy_j=(statistics.median(each.energy_j), min(each.energy_j), max(each.energy_j), len(each.energy_j))
        if each.energy_j
        else None,
    )
