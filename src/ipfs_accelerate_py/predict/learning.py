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
from .kinds import DEFAULTS, GENERIC, ceilings_of, group_of, with_probe
from .observations import Evidence, Observation

# How far, in the logarithm, a device may lie from its engine's prior, and a model on it from the device. Ceilings that are known are not
# far from what engines reach; nominal ones are but a start.
DEVICE_SPREAD, NOMINAL_SPREAD, MODEL_SPREAD = (0.3, 0.3, 1.2, 1.5), (0.7, 0.7, 1.2, 1.5), (0.15, 0.15, 0.3, 0.3)


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
    rough = {key: fit_device(own, _start(own[0].group, ceilings.get(key))) for key, own in of_device.items()}
    priors = {}
    for group in sorted({cell.group for cell in cells}):
        known = [rough[key].logs for key, own in of_device.items() if own[0].group == group]
        priors[group] = Costs.of(np.mean(known, axis=0))
    devices = {key: fit_device(own, with_probe(priors[own[0].group], ceilings.get(key))) for key, own in of_device.items()}
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


def _start(group: str, ceilings: Ceilings | None) -> Costs:
    return with_probe(DEFAULTS.get(group, GENERIC), ceilings)


def fit_device(cells: Sequence[Cell], prior: Costs) -> Costs:
    spread = NOMINAL_SPREAD if cells and cells[0].source == "nominal" else DEVICE_SPREAD
    return fit([row for cell in cells for row in cell.rows], prior, spread)


def seconds(knowledge: Knowledge, cell: Cell, costs: Costs) -> float:
    """The total time that ``costs`` and the residual predict of a cell."""
    term = cell.terms["total"]
    given = residual.features(term, costs, cell.observation.batch_size)
    added, _ = residual.correction(knowledge.residual, cell.observation.key.engine, given)
    return term.seconds(costs) * math.exp(added)
