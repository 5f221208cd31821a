"""Eleven numbers a device: how far its engine stays from the roofline in each kind of work, and what a kernel and an execution cost.

The time of an iteration is the sum over its phases of runs * (the roofline's seconds of each kind of work (``roofline.WORK``) times a
number of its own + kernel * kernels + execution). All are positive and are fitted in logarithms, by least squares on the logarithm of
the time, with a prior. Of kinds that are alike the prior is on their ratio: a device on which only products with weights were seen to be
slow is believed to be as slow in convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph import ModelCounts
from ..lazy_numpy import np
from .ceilings import Ceilings
from .roofline import WORK, phase_time

NAMES = (*WORK, "kernel_s", "execution_s")
KINDS = (*(f"{name}_s" for name in WORK), "kernels")
TERMS = (*KINDS, "executions")
SIGMA = 0.05  # of the logarithm of a measured time: what launches differ by
STEPS, DAMPING = 60, 1e-3
NOT_READ_BACK = ("encoder", "vision", "backward", "optimizer")  # their results stay on the device for the next phase
WEIGHTS = {"total": 1.0, "first": 0.6, "token": 0.6}  # the parts of a generation are not independent of it


# By their places in WORK: the first of each pair is believed to be as far from the roofline as the second.
RATIOS = ((1, 0), (2, 0), (3, 0), (5, 4), (7, 6), (8, 6))


@dataclass(frozen=True)
class Costs:
    """The first nine multiply the roofline's times; ``kernel_s`` is for each operator that is started, ``execution_s`` for each run of a
    phase with its readback."""

    linear: float
    product: float
    conv: float
    few_rows: float
    weights: float
    streamed: float
    moved: float
    computed: float
    placed: float
    kernel_s: float
    execution_s: float

    @classmethod
    def plain(cls, arithmetic: float, traffic: float, kernel_s: float, execution_s: float) -> Costs:
        """The same for every kind of arithmetic, and of traffic."""
        kinds = dict(zip(WORK, [arithmetic] * 4 + [traffic] * 5, strict=True))
        return cls(**kinds, kernel_s=kernel_s, execution_s=execution_s)

    @property
    def array(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in NAMES)

    @property
    def logs(self) -> np.ndarray:
        return np.log(self.array)

    @classmethod
    def of(cls, logs: Sequence[float] | np.ndarray) -> Costs:
        return cls(*(float(value) for value in np.exp(np.asarray(logs, dtype=float))))


@dataclass(frozen=True)
class Terms:
    """What multiplies the numbers, of the timed part of an iteration."""

    linear_s: float
    product_s: float
    conv_s: float
    few_rows_s: float
    weights_s: float
    streamed_s: float
    moved_s: float
    computed_s: float
    placed_s: float
    kernels: float
    executions: float
    unknown_share: float = 0.0

    @property
    def array(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in TERMS)

    @property
    def roofline_s(self) -> float:
        """What the ceilings alone say: nothing is faster."""
        return sum(self.array[:9])

    def seconds(self, costs: Costs) -> float:
        return sum(self._parts(costs))

    def shares(self, costs: Costs) -> tuple[float, float, float, float]:
        """Of the time: arithmetic, traffic, starting kernels, executions with their readback."""
        parts = self._parts(costs)
        total = sum(parts)
        return sum(parts[:4]) / total, sum(parts[4:9]) / total, parts[9] / total, parts[10] / total

    def _parts(self, costs: Costs) -> tuple[float, ...]:
        """Seconds of each; without numpy, which takes longer to import than an answer may."""
        return tuple(one * each for one, each in zip(self.array, costs.array, strict=True))


def terms(counts: ModelCounts, ceilings: Ceilings, engine: str, precision: str) -> dict[str, Terms]:
    """``total`` of an iteration; for models that generate also ``first``, up to the first token, and ``token``, each further."""
    times = {name: (phase.runs, phase_time(phase, ceilings, engine, precision)) for name, phase in counts.phases.items()}

    def of(names: Sequence[str], once: bool = False) -> Terms:
        chosen = [(1 if once else runs, time) for name, (runs, time) in times.items() if name in names]
        kinds = {kind: sum(runs * getattr(time, kind) for runs, time in chosen) for kind in KINDS}
        unknown = max((time.unknown_share for _, time in chosen), default=0.0)
        waited = sum(1 if once else runs for name, (runs, _) in times.items() if name in names and name not in NOT_READ_BACK)
        return Terms(**kinds, executions=waited, unknown_share=unknown)

    found = {"total": of(list(times))}
    if "prefill" in times:
        found["first"] = of([name for name in times if name != "decode"])
    if "decode" in times:
        found["token"] = of(["decode"], once=True)
    return found


def fit(rows: Sequence[tuple[Terms, float, float]], prior: Costs, spread: Sequence[float]) -> Costs:
    """The costs that fit ``rows`` of (terms, seconds, weight) best, held to the ``prior`` by the ``spread`` of each number's logarithm, or
    of its ratio to another (RATIOS).

    Levenberg-Marquardt; with no rows it is the prior.
    """
    if not rows:
        return prior
    design = np.array([row[0].array for row in rows], dtype=float)
    seconds = np.log([row[1] for row in rows])
    weights = np.sqrt([row[2] for row in rows]) / SIGMA
    held = np.eye(design.shape[1])
    for one, other in RATIOS:
        held[one, other] = -1.0
    centre, pull = prior.logs, held / np.asarray(spread)[:, None]
    logs, damping = centre.copy(), DAMPING

    def residuals(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = design * np.exp(at)
        total = parts.sum(1)
        error = np.concatenate([(np.log(total) - seconds) * weights, pull @ (at - centre)])
        slope = np.concatenate([parts / total[:, None] * weights[:, None], pull])
        return error, slope

    error, slope = residuals(logs)
    for _ in range(STEPS):
        normal = slope.T @ slope
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope.T @ error)
        tried, tried_slope = residuals(logs + np.clip(step, -2, 2))
        if tried @ tried < error @ error:
            logs, done = logs + np.clip(step, -2, 2), np.abs(step).max() < 1e-6
            error, slope, damping = tried, tried_slope, damping / 3
            if done:
                break
        else:
            damping *= 4
            if damping > 1e9:
                break
    return Costs.of(logs)


def rows_of(found: Mapping[str, Terms], ms: Mapping[str, float]) -> list[tuple[Terms, float, float]]:
    """What one cell gives to fit: its parts that were both counted and measured."""
    return [(found[name], ms[name] / 1000, WEIGHTS[name]) for name in found if name in ms]
