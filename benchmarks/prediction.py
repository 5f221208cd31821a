"""How wrong the predictor is on whole cells, models and devices that it never saw, by regime; and how well it ranks.

    python benchmarks/prediction.py [--store STORE ...] [--train]

Prints for each regime the median and mean absolute percentage error, the coverage and width of its 90 % intervals, and for new models the
Kendall tau between the predicted and the measured order of the devices of a machine, with the regret of the first choice. Everything is
computed from measured launches (data/reference and the stores that are named); nothing is timed here but the answers of the predictor.
``--train`` writes the predictor of data/reference into the package.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from pathlib import Path

from scipy.stats import kendalltau

from ipfs_accelerate_py import paths
from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.predict import Predictor, conformal, fitted
from ipfs_accelerate_py.predict.evaluation import left_out, memory_errors, residual_helps
from ipfs_accelerate_py.predict.kinds import ceilings_of
from ipfs_accelerate_py.predict.learning import Cell, cells_of, learn, seconds
from ipfs_accelerate_py.predict.observations import Evidence, read
from ipfs_accelerate_py.predict.training import train

GOALS = {
    "interpolated": 5,
    "new model": 10,
    "new device": 15,
    "datasheet": 30,
}  # mean absolute percentage error; none for software adapters


def regimes(evidence: Evidence) -> None:
    """A line for each regime: errors, coverage and width."""
    print(f"{'regime':16} {'cells':>5} {'groups':>6} {'median':>7} {'mean':>7} {'goal':>5}  {'coverage':>8}  90 % interval")
    for regime, errors in left_out(evidence).items():
        if not errors:
            print(f"{regime:16} {0:5}  no such case in this data")
            continue
        width = conformal.width(errors)
        covered = conformal.coverage(errors)
        told = "one group" if math.isnan(covered) else f"{covered:.0%}"
        half = math.exp(width.half_width)
        print(
            f"{regime:16} {width.n:5} {width.groups:6} {width.error['median_percent']:6.1f}% {width.error['mean_percent']:6.1f}% "
            f"{GOALS.get(regime, '-'):>4}%  {told:>8}  value / {half:.2f} to value * {half:.2f}"
        )


def peaks(evidence: Evidence) -> None:
    """Errors of the peak memory of inference on left-out model classes: of all, and by platform and engine with the most below."""
    cells = cells_of(evidence)
    kinds: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for kind in sorted({f"{cell.observation.key.platform} {cell.observation.key.engine}" for cell in cells}):
        own = [cell for cell in cells if f"{cell.observation.key.platform} {cell.observation.key.engine}" == kind]
        kinds[kind] = memory_errors(own)
    every = [error for errors in kinds.values() for error in errors]
    for name, errors in [("peak memory", every), *kinds.items()]:
        if errors:
            width = conformal.width(errors)
            below = max(0.0, 1 - math.exp(-max(error for _, error in errors)))
            print(
                f"{name:24} {width.n:5} {width.groups:6} {width.error['median_percent']:6.1f}% {width.error['mean_percent']:6.1f}%    5%  "
                f"at most {below:.0%} too low"
            )


def left_out_predictions(evidence: Evidence) -> list[tuple[Cell, float]]:
    """Each cell with the seconds that are predicted by what never saw its model class."""
    cells = cells_of(evidence)
    ceilings = {cell.key: ceilings_of(cell.observation.key, evidence, cell.observation.software_adapter) for cell in cells}
    corrected = residual_helps(cells, ceilings)
    found = []
    for model in sorted({str(cell.observation.description.model_class) for cell in cells}):
        rest = [cell for cell in cells if cell.observation.description.model_class != model]
        known = learn(rest, ceilings, corrected, of_models=False)
        own = [cell for cell in cells if cell.observation.description.model_class == model]
        found += [(cell, seconds(known, cell, known.devices[cell.key])) for cell in own if cell.key in known.devices]
    return found


def ranking(evidence: Evidence) -> tuple[list[float], list[float]]:
    """Kendall tau and regret in percent of every work that was measured on three devices of a machine or more."""
    works: dict[tuple[object, ...], list[tuple[float, float]]] = defaultdict(list)
    for cell, predicted in left_out_predictions(evidence):
        each = cell.observation
        if not each.software_adapter:
            work = (
                each.key.machine,
                each.model,
                each.batch_size,
                each.sequence_length,
                each.new_tokens,
                each.precision,
                each.mode,
            )
            works[work].append((predicted, each.ms["total"] / 1000))
    taus, regrets = [], []
    for pairs in works.values():
        if len(pairs) >= 3:
            predicted, measured = zip(*pairs, strict=True)
            taus.append(float(kendalltau(predicted, measured).statistic))
            regrets.append(100 * (min(pairs)[1] / min(measured) - 1))
    return taus, regrets


def answers() -> None:
    """How long an answer takes in a process that has the predictor loaded, against the 50 ms that were set."""
    predictor, description = Predictor.from_stores(), describe("bert-base-uncased")
    times = []
    for length in range(16, 116):  # another work each time: nothing is remembered
        start = time.perf_counter()
        predictor.predict(description, platform="cpu", sequence_length=length)
        times.append(1000 * (time.perf_counter() - start))
    print(
        f"An answer takes {statistics.median(times):.2g} ms (median of {len(times)}, the longest {max(times):.2g} ms); goal 50 ms."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, action="append", default=[])
    parser.add_argument("--train", action="store_true", help="write the predictor of data/reference into the package")
    arguments = parser.parse_args()
    evidence = read(arguments.store, paths.reference_folders())
    if arguments.train:
        place = Path(fitted.__file__).with_name("reference.json")
        made = train(read([], paths.reference_folders()))
        print(f"{place}: {made.save(place).stat().st_size} bytes, version {made.version}")
    devices = {each.key.text for each in evidence.observations}
    models = {each.model for each in evidence.observations}
    print(
        f"{len(evidence.observations)} measured cells of {len(models)} models on {len(devices)} devices, {len(evidence.probes)} probes"
    )
    for warning in evidence.warnings:
        print(warning)
    regimes(evidence)
    peaks(evidence)
    taus, regrets = ranking(evidence)
    if taus:
        print(
            f"Ranking the devices of a machine for a model that was left out, software adapters aside ({len(taus)} works): Kendall tau "
            f"median {statistics.median(taus):.2f}, mean {statistics.mean(taus):.2f}; regret of the first choice median "
            f"{statistics.median(regrets):.1f} %, mean {statistics.mean(regrets):.1f} %"
        )
    answers()


if __name__ == "__main__":
    main()
