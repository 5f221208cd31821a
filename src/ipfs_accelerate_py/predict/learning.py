"""From measured cells to costs: of engines, of devices, of models on devices; each level is the prior of the next."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lazy_numpy import np
from . import residual
from .ceilings import Ceilings
from .fitting import Costs, Terms, fit, rows_of, terms
from .kinds import ceilings_of, family, group_of, prior_of, to_probe
from .observations import Evidence, Observation

# How far, in the logarithm, a device may lie from its engine's prior, and a model on it from the device. Ceilings that are known are not
# far from what engines reach; nominal ones are but a start.
# The order is that of ``fitting.NAMES``; some are of ratios (``fitting.RATIOS``).
ASSUMED_SPREAD = (0.3, 0.3, 0.3, 0.7, 0.3, 0.5, 0.3, 0.7, 0.7, 1.2, 1.5)  # of a device from what is assumed of its kind
DEVICE_SPREAD = (0.15, 0.15, 0.2, 0.5, 0.15, 0.3, 0.2, 0.5, 0.5, 0.4, 0.7)
NOMINAL_SPREAD = (0.7, 0.3, 0.3, 0.7, 0.7, 0.5, 0.7, 0.7, 0.7, 1.2, 1.5)
MODEL_SPREAD = (0.15, 0.1, 0.1, 0.1, 0.15, 0.1, 0.15, 0.1, 0.1, 0.3, 0.3)


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


def learn(cells: Sequence[Cell], ceilings: Mapping[str, Ceilings], corrected: bool, *, of_models: bool = True) -> Knowledge:
    """Engines from their devices, devices from their models; each level is the prior of the next. ``corrected``: with the residual.
    Without ``of_models`` no model gets costs of its own, which most of the time goes into."""
    of_device: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        of_device[cell.key].append(cell)
    priors = _priors(of_device, ceilings)
    devices = {key: fit_device(own, prior_of(priors, own[0].group, ceilings.get(key))) for key, own in of_device.items()}
    models = {}
    for key, own in of_device.items() if of_models else ():
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


def _priors(of_device: Mapping[str, Sequence[Cell]], ceilings: Mapping[str, Ceilings]) -> dict[str, Costs]:
    """The mean of an engine's devices, in logarithms, by the family of their ceilings; of probed ones relative to the probe."""
    known: dict[str, list[Any]] = defaultdict(list)
    for key, own in of_device.items():
        group, found = own[0].group, ceilings.get(key)
        rough = fit_device(own, prior_of({}, group, found), ASSUMED_SPREAD)
        name = family(own[0].source)
        if name == "probed" and found is not None:
            rough = to_probe(rough, found)
        known[f"{group} {name}"].append(rough.logs)
    return {name: Costs.of(np.mean(logs, axis=0)) for name, logs in sorted(known.items())}


def fit_device(cells: Sequence[Cell], prior: Costs, spread: Sequence[float] | None = None) -> Costs:
    if spread is None:
        spread = DEVICE_SPREAD
    if cells and cells[0].source == "nominal":
        spread = NOMINAL_SPREAD
    return fit([row for cell in cells for row in cell.rows], prior, spread)


def seconds(knowledge: Knowledge, cell: Cell, costs: Costs) -> float:
    """The total time that ``costs`` and the residual predict of a cell."""
    term = cell.terms["total"]
    given = residual.features(term, costs, cell.observation.batch_size)
    added, _ = residual.correction(knowledge.residual, cell.observation.key.engine, given)
    return term.seconds(costs) * math.exp(added)
