"""How wrong the predictor is on what it never saw: whole cells, models and devices left out, by regime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..graph import ModelCounts
from ..lazy_numpy import np
from .ceilings import Ceilings
from .fitting import fit
from .kinds import ceilings_of, known_kind, prior_of
from .learning import MODEL_SPREAD, Cell, cells_of, fit_device, learn, seconds
from .memory import fit_memory
from .observations import Evidence, Observation

Error = tuple[str, float]


def left_out(evidence: Evidence) -> dict[str, list[Error]]:
    """(group, logarithm of measured over predicted) of every cell, by regime, each predicted by what never saw its group.

    ``interpolated`` leaves a cell out, ``new model`` a whole model of every device, ``new device`` a device but its probe, and
    ``datasheet`` the probes too. ``software adapter`` has the errors of new models on those, which say nothing of
    GPUs.
    """
    cells = cells_of(evidence)
    ceilings = {cell.key: ceilings_of(cell.observation.key, evidence, cell.observation.software_adapter) for cell in cells}
    errors: dict[str, list[Error]] = {"interpolated": []}

    corrected = residual_helps(cells, ceilings)
    whole = learn(cells, ceilings, corrected, of_models=False)
    for index, cell in enumerate(cells):
        others = cells[:index] + cells[index + 1 :]
        same = [each for each in others if each.key == cell.key and each.observation.model == cell.observation.model]
        if same and not cell.observation.software_adapter:
            device = fit_device(
                [each for each in others if each.key == cell.key], prior_of(whole.priors, cell.group, ceilings[cell.key])
            )
            costs = fit([row for each in same for row in each.rows], device, MODEL_SPREAD)
            errors["interpolated"].append(
                (f"{cell.key} {cell.observation.model}", _error(cell, cell.terms["total"].seconds(costs)))
            )
    errors["new model"], errors["software adapter"] = _new_models(cells, ceilings, corrected)
    errors["new device"] = _new_devices(cells, ceilings, corrected, lambda key: ceilings[key].source == "probe")
    plain = cells_of(evidence, probed=False)
    sheets = {cell.key: ceilings_of(cell.observation.key, evidence, False, probed=False) for cell in plain}
    errors["datasheet"] = _new_devices(plain, sheets, corrected, lambda key: sheets[key].source == "datasheet")
    return errors


def residual_helps(cells: Sequence[Cell], ceilings: Mapping[str, Ceilings]) -> bool:
    """Whether models that were left out are predicted better with the residual than without: it must earn its place."""
    with_it, without = (np.abs([error for _, error in _new_models(cells, ceilings, used)[0]]) for used in (True, False))
    return bool(len(with_it) and with_it.mean() < without.mean())


def _error(cell: Cell, predicted_s: float) -> float:
    return math.log(cell.observation.ms["total"] / 1000 / predicted_s)


def _new_models(cells: Sequence[Cell], ceilings: Mapping[str, Ceilings], corrected: bool) -> tuple[list[Error], list[Error]]:
    """On real devices, and on software adapters."""
    errors: tuple[list[Error], list[Error]] = ([], [])
    for model, out, rest in _splits(cells, lambda cell: str(cell.observation.description.model_class)):
        known = learn(rest, ceilings, corrected, of_models=False) if rest else None
        for cell in out:
            if known and cell.key in known.devices:
                errors[cell.observation.software_adapter].append(
                    (model, _error(cell, seconds(known, cell, known.devices[cell.key])))
                )
    return errors


def _new_devices(
    cells: Sequence[Cell],
    ceilings: Mapping[str, Ceilings],
    corrected: bool,
    wanted: Callable[[str], bool],
) -> list[Error]:
    errors: list[Error] = []
    for device, out, rest in _splits(cells, lambda cell: cell.key):
        if not rest or not wanted(device) or out[0].observation.software_adapter:
            continue
        known = learn(rest, ceilings, corrected, of_models=False)
        group = out[0].group
        if not known_kind(known.priors, group):
            continue  # of this kind nothing else is known: not even a guess, and the predictor says so
        costs = prior_of(known.priors, group, ceilings.get(device))
        for cell in out:
            errors.append((device, _error(cell, seconds(known, cell, costs))))
    return errors


def _splits(cells: Sequence[Cell], name: Callable[[Cell], str]) -> Iterable[tuple[str, list[Cell], list[Cell]]]:
    for group in sorted({name(cell) for cell in cells}):
        yield group, [cell for cell in cells if name(cell) == group], [cell for cell in cells if name(cell) != group]


def memory_errors(cells: Sequence[Cell]) -> list[Error]:
    """(model class, logarithm of measured over predicted peak of inference), each class predicted from the others on the same device."""
    errors = []
    for cell in cells:
        each = cell.observation
        name = str(each.description.model_class)
        others = [
            other.observation
            for other in cells
            if other.key == cell.key and other.observation.description.model_class != each.description.model_class
        ]
        fitted = fit_memory(footprints(others), each.key.platform, each.key.engine)
        if fitted:
            errors += [(name, math.log(peak / fitted.peak(counts))) for counts, peak in footprints([each])]
    return errors


def footprints(observations: Iterable[Observation]) -> list[tuple[ModelCounts, float]]:
    """What the memory of inference is learned from: training has formulas of its own."""
    return [(each.counts, each.peak_bytes) for each in observations if each.peak_bytes and each.mode == "inference"]
