"""Four numbers a device: how far its engine stays from the roofline's arithmetic and traffic, and what a kernel and an execution cost.

The time of an iteration is the sum over its phases of runs * (arithmetic * a + traffic * t + kernel * kernels + execution), with a the
roofline's seconds of operators that arithmetic bounds, and t of those that traffic does. All four are positive and are fitted in
logarithms, by least squares on the logarithm of the time, with a prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph import ModelCounts
from ..lazy_numpy import np
from .ceilings import Ceilings
from .roofline import phase_time

SIGMA = 0.05  # of the logarithm of a measured time: what launches differ by
STEPS, DAMPING = 60, 1e-3
NOT_READ_BACK = ("encoder", "vision", "backward", "optimizer")  # their results stay on the device for the next phase
WEIGHTS = {"total": 1.0, "first": 0.6, "token": 0.6}  # the parts of a generation are not independent of it


@dataclass(frozen=True)
class Costs:
    """``arithmetic`` and ``traffic`` multiply the roofline's times; ``kernel_s`` is for each operator that is started, ``execution_s`` for
    each run of a phase with its readback."""

    arithmetic: float
    traffic: float
    kernel_s: float
    execution_s: float

    @property
    def logs(self) -> np.ndarray:
        return np.log([self.arithmetic, self.traffic, self.kernel_s, self.execution_s])

    @classmethod
    def of(cls, logs: Sequence[float] | np.ndarray) -> Costs:
        return cls(*(float(value) for value in np.exp(np.asarray(logs, dtype=float))))


@dataclass(frozen=True)
class Terms:
    """What multiplies the four numbers, of the timed part of an iteration."""

    arithmetic_s: float
    traffic_s: float
    kernels: float
    executions: float
    unknown_share: float = 0.0

    @property
    def array(self) -> np.ndarray:
        return np.array([self.arithmetic_s, self.traffic_s, self.kernels, self.executions])

    def seconds(self, costs: Costs) -> float:
        return sum(self._parts(costs))

    def shares(self, costs: Costs) -> tuple[float, ...]:
        """Of the time: arithmetic, traffic, starting kernels, executions with their readback."""
        parts = self._parts(costs)
        total = sum(parts)
        return tuple(part / total for part in parts)

    def _parts(self, costs: Costs) -> tuple[float, ...]:
        """Seconds of each; without numpy, which takes longer to import than an answer may."""
        return (
            self.arithmetic_s * costs.arithmetic,
            self.traffic_s * costs.traffic,
            self.kernels * costs.kernel_s,
            self.executions * costs.execution_s,
        )


def terms(counts: ModelCounts, ceilings: Ceilings, engine: str, precision: str) -> dict[str, Terms]:
    """``total`` of an iteration; for models that generate also ``first``, up to the first token, and ``token``, each further."""
    times = {name: (phase.runs, phase_time(phase, ceilings, engine, precision)) for name, phase in counts.phases.items()}

    def of(names: Sequence[str], once: bool = False) -> Terms:
        chosen = [(1 if once else runs, time) for name, (runs, time) in times.items() if name in names]
        arithmetic = sum(runs * time.arithmetic_s for runs, time in chosen)
        traffic = sum(runs * time.traffic_s for runs, time in chosen)
        kernels = sum(runs * time.kernels for runs, time in chosen)
        unknown = max((time.unknown_share for _, time in chosen), default=0.0)
        waited = sum(1 if once else runs for name, (runs, _) in times.items() if name in names and name not in NOT_READ_BACK)
        return Terms(arithmetic, traffic, kernels, waited, unknown)

    found = {"total": of(list(times))}
    if "prefill" in times:
        found["first"] = of([name for name in times if name != "decode"])
    if "decode" in times:
        found["token"] = of(["decode"], once=True)
    return found


def fit(rows: Sequence[tuple[Terms, float, float]], prior: Costs, spread: Sequence[float]) -> Costs:
    """The costs that fit ``rows`` of (terms, seconds, weight) best, held to the ``prior`` by the ``spread`` of each number's logarithm.

    Levenberg-Marquardt; with no rows it is the prior.
    """
    if not rows:
        return prior
    design = np.array([row[0].array for row in rows])
    seconds = np.log([row[1] for row in rows])
    weights = np.sqrt([row[2] for row in rows]) / SIGMA
    centre, inverse = prior.logs, 1.0 / np.asarray(spread)
    logs, damping = centre.copy(), DAMPING

    def residuals(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = design * np.exp(at)
        total = parts.sum(1)
        error = np.concatenate([(np.log(total) - seconds) * weights, (at - centre) * inverse])
        slope = np.concatenate([parts / total[:, None] * weights[:, None], np.diag(inverse)])
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
