"""One cell of the report: all launches of one spec, and what may be said about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

from ..measure.compare import Comparison, compare_all
from ..measure.statistics import Interval, bootstrap_medians
from ..spec import PLATFORMS
from .data import ReportData
from .wording import count, model_labels, target_labels

Launch = Mapping[str, Any]

# kind -> (symbol, meaning): each is told apart by its symbol and its words, not only by its colour.
KINDS = {
    "measured": ("●", "measured, output check passed"),
    "simulated": ("◇", "simulated, not measured"),
    "inaccurate": ("!", "measured, output check not passed: never ranked"),
    "unchecked": ("?", "measured, output not checked: never ranked"),
    "failed": ("✕", "every launch failed"),
    "unsupported": ("–", "cannot run here"),
}

NUMBER_MARKS = {
    kind: f"{KINDS[kind][0]} {word}"
    for kind, word in (("simulated", "simulated"), ("inaccurate", "output wrong"), ("unchecked", "not checked"))
}
SIMULATED_MARK = NUMBER_MARKS["simulated"]
FLAGS = {
    **{mark: KINDS[kind][1] for kind, mark in NUMBER_MARKS.items()},
    "sw": "software adapter: the CPU's time, says nothing about a GPU",
    "cov": "part of the graph ran on another provider than the one asked for",
    "~": "some launches never became steady",
    "part": "some launches gave no result",
    "beside": "another launch's process imported torch beside some launches, and the start of those is not in cold starts",
}


@dataclass(frozen=True)
class Cell:
    """Launches of one spec and one provenance. Times are milliseconds per iteration."""

    id: str
    model: str  # label
    target: str  # label
    launches: tuple[Launch, ...]

    @property
    def first(self) -> Launch:
        return self.launches[0]

    @cached_property
    def ok(self) -> tuple[Launch, ...]:
        """Launches that ended with samples."""
        return tuple(launch for launch in self.launches if launch["status"] == "ok" and usable(launch["samples_ns"]))

    @cached_property
    def started(self) -> tuple[Launch, ...]:
        """Launches that were begun; the row of a cell that could not be planned or prepared is none."""
        return tuple(launch for launch in self.launches if launch["error_phase"] not in ("plan", "prepare"))

    @cached_property
    def kind(self) -> str:
        """A key of KINDS. One launch whose output check does not pass is enough to keep the cell out of the ranking."""
        if not self.ok:
            return "unsupported" if all(launch["status"] == "unsupported" for launch in self.launches) else "failed"
        if self.simulated:
            return "simulated"
        checks = [launch["accuracy"] for launch in self.ok]
        if any(check and not check["passed"] for check in checks):
            return "inaccurate"
        return "measured" if all(checks) else "unchecked"

    @cached_property
    def samples(self) -> list[list[float]]:
        """Steady iterations of each launch that ended, milliseconds."""
        return [[sample / 1e6 for sample in usable(launch["samples_ns"])] for launch in self.ok]

    @cached_property
    def medians(self) -> list[float]:
        """One median per launch, milliseconds."""
        return [median(samples) for samples in self.samples]

    @cached_property
    def median(self) -> float | None:
        return median(self.medians) if self.ok else None

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval of the median over launches; None below two launches."""
        return launch_median_interval(self.samples) if len(self.ok) > 1 else None

    def per_launch(self, name: str, scale: float = 1.0) -> list[float]:
        """One value per launch that has the field: the number, or the median of a list, times ``scale``.

        A dotted name reaches into a dictionary.
        """
        return [value * scale for value in usable([_dig(launch, name) for launch in self.ok])]

    def median_of(self, name: str, scale: float = 1.0) -> float | None:
        """Median over launches of ``per_launch``; None where no launch has the field."""
        return median(values) if (values := self.per_launch(name, scale)) else None

    @cached_property
    def flags(self) -> list[tuple[str, str]]:
        """Mark and sentence for whatever a reader must know before believing the number; the mark stands beside it everywhere."""
        flags = []
        if self.kind in NUMBER_MARKS:
            flags.append((NUMBER_MARKS[self.kind], KINDS[self.kind][1]))
        elif self.simulated:  # one without a result, whose reason is of the simulation
            flags.append((SIMULATED_MARK, KINDS["simulated"][1]))
        if self.software:
            flags.append(
                (
                    "sw",
                    " ".join(["software adapter", adapter(self.launches)]).strip()
                    + ": the CPU's time, says nothing about a GPU",
                )
            )
        shares = [cov["share"] for launch in self.ok if (cov := launch["coverage"])]
        if shares and min(shares) < 1:
            flags.append(("cov", f"only {min(shares):.0%} of the graph's nodes ran on the provider asked for"))
        if self.ok and not shares and not self.simulated and self.ok[0]["platform"] in ("webgpu", "webnn"):
            flags.append(("cov?", "which provider ran the graph's nodes is not known"))
        if unsteady := sum(launch["steady"] is False for launch in self.ok):
            flags.append(("~", f"{unsteady} of {len(self.ok)} launches never became steady"))
        if self.ok and len(self.ok) < len(self.launches):
            flags.append(
                ("part", f"{len(self.launches) - len(self.ok)} of {count(len(self.launches), 'launch')} gave no result")
            )
        beside = sum(bool(launch["facts"].keys() & {"imported_ahead", "imports_beside"}) for launch in self.ok)
        if beside:
            flags.append(
                ("beside", f"imports of torch overlapped {beside} of {count(len(self.ok), 'launch')}: --overlap-imports")
            )
        return flags

    @property
    def marks(self) -> str:
        """The marks of all flags in parentheses, to follow a number in a text; empty without flags."""
        return f" ({', '.join(mark for mark, _ in self.flags)})" if self.flags else ""

    @property
    def simulated(self) -> bool:
        return self.first["provenance"] != "measured"

    @property
    def software(self) -> bool:
        return any(launch["software_adapter"] for launch in self.launches)


@dataclass(frozen=True)
class Ranking:
    """Checked measurements of one workload, lowest median first.

    ``comparisons`` has each of the others against the first: the ratio says how many times as long the other takes.
    """

    model: str  # label; names one workload on one machine
    order: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def best(self) -> Cell | None:
        """The first, if the comparisons with all others say that it is faster (or nothing is there to compare with)."""
        return self.order[0] if self.order and not self.level else None

    @property
    def level(self) -> tuple[Cell, ...]:
        """Those that the first is not shown to be faster than: equal to it, or not decided."""
        return tuple(cell for cell, found in zip(self.order[1:], self.comparisons, strict=True) if found.verdict != "slower")

    @property
    def equal(self) -> bool:
        """Whether all of ``level`` are shown to be equal to the first, so that it does not matter which is taken."""
        verdicts = [found.verdict for found in self.comparisons if found.verdict != "slower"]
        return bool(verdicts) and all(verdict == "equal" for verdict in verdicts)


def cells(data: ReportData) -> list[Cell]:
    """All cells, models in the order in which they were asked for, targets by platform.

    Simulated launches never share a cell with measured ones, nor one machine with another: then a label names the machine.
    """
    models, targets = model_labels(data.launches), target_labels(data.launches)
    machines = {str(launch["machine"].get("machine_id")) for launch in data.launches if launch["machine"]}
    groups: dict[str, list[Launch]] = {}
    labels: dict[str, str] = {}
    for launch in data.launches:
        id_ = launch["spec_hash"] if launch["provenance"] == "measured" else f"{launch['spec_hash']}-{launch['provenance']}"
        label = models[launch["workload_hash"]]
        if len(machines) > 1:
            machine = str(launch["machine"].get("machine_id"))[:6]
            id_, label = f"{id_}-{machine}", f"{label} · machine {machine}"
        groups.setdefault(id_, []).append(launch)
        labels[id_] = label
    found = [Cell(id_, labels[id_], targets[group[0]["target_hash"]], tuple(group)) for id_, group in groups.items()]
    position = {name: place for place, name in enumerate(PLATFORMS)}
    asked = list(data.campaign.get("request", {}).get("models", ()))
    order = {label: place for place, label in enumerate(sorted(dict.fromkeys(labels.values())))}

    def place(cell: Cell) -> tuple[int, int, int, str, str]:
        model, platform = cell.first["model_class"], cell.first["platform"]
        asked_at = asked.index(model) if model in asked else len(asked)
        return asked_at, order[cell.model], position.get(platform, len(PLATFORMS)), cell.target, cell.id

    return sorted(found, key=place)


def rankings(all_cells: Sequence[Cell]) -> list[Ranking]:
    """One ranking per model label, also where nothing can be ranked. All comparisons of the report are one family.

    A software adapter competes with nothing: it has few launches, and its time is the CPU's, which the other cells are as well.
    """
    orders: dict[str, list[Cell]] = {cell.model: [] for cell in all_cells}
    for cell in sorted((cell for cell in all_cells if cell.kind == "measured"), key=lambda cell: cell.median or math.inf):
        orders[cell.model].append(cell)
    orders = {model: [cell for cell in order if not cell.software] or order for model, order in orders.items()}
    found = compare_all({cell.id: (cell.samples, order[0].samples) for order in orders.values() for cell in order[1:]})
    return [Ranking(model, tuple(order), tuple(found[cell.id] for cell in order[1:])) for model, order in orders.items()]


def fastest_medians(cells: Sequence[Cell]) -> dict[str, float]:
    """Fastest checked median by model label, milliseconds."""
    fastest: dict[str, float] = {}
    for cell in cells:
        if cell.kind == "measured" and cell.median:
            fastest[cell.model] = min(cell.median, fastest.get(cell.model, math.inf))
    return fastest


def adapter(launches: Sequence[Launch]) -> str:
    """Name of the adapter that the launches ran on, as the browser told it; empty where it hides it."""
    for launch in launches:
        device = launch["facts"].get("device")
        if isinstance(device, Mapping):
            for name in ("description", "device", "architecture", "vendor"):
                if device.get(name):
                    return str(device[name])
    return ""


def usable(values: Sequence[Any]) -> list[float]:
    """The values that are finite numbers."""
    return [value for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _dig(launch: Launch, name: str) -> Any:
    value: Any = launch
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list | tuple):
        values = usable(value)
        return median(values) if values else None
    return value


def launch_median_interval(launches: Sequence[Sequence[float]], confidence: float = 0.95) -> Interval:
    """Of the median of launch medians, by the hierarchical bootstrap, widened for few launches as in ``ratio_interval``."""
    count = len(launches)
    tail = stats.norm.cdf(math.sqrt(count / (count - 1)) * stats.t.ppf((1 - confidence) / 2, count - 1))
    medians = bootstrap_medians(launches, 2000, np.random.default_rng(0))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Interval(float(low), float(high))
