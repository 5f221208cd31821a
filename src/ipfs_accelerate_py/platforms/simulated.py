"""Stands in for any platform where there is neither its accelerator nor its browser: real outputs, made-up times.

Outputs are computed by this machine's CPU. Times are drawn from a log-normal distribution with the constants below, the same for
every platform on purpose: a simulated time says nothing about a platform, and no platform may seem to win. Whatever runs here is
stored as ``simulated``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import LaunchError
from ..spec import BROWSER_PLATFORMS, Workload
from .base import Available, Coverage, Device, Memory, OpenOptions, Platform, RemoteSession, Sample, Session, Unavailable
from .cpu import Cpu
from .registry import platform

MEDIAN_MS = 100.0  # of one iteration
LAUNCH_SPREAD = 0.02  # standard deviation of the logarithm, between launches
ITERATION_SPREAD = 0.05  # the same, between the iterations of a launch
ITERATIONS = {"fetch": 10, "load": 5, "compile": 20, "first_inference": 2}  # as many iterations as each phase takes
DISTRIBUTION = (
    f"Drawn, not measured: log-normal, median {MEDIAN_MS:g} ms, standard deviation of the logarithm {LAUNCH_SPREAD:g} between launches "
    f"and {ITERATION_SPREAD:g} between iterations, the same for every platform."
)


class Simulated(Platform):
    """The platform of the name ``stands_for`` with these engines. ``seed`` decides the times of one launch."""

    name = "simulated"
    engines = ()  # those of what it stands for

    def __init__(self, stands_for: str, engines: Sequence[str], seed: str = "") -> None:
        self._stands_for = stands_for
        self._engines = tuple(engines)
        self._seed = seed

    def probe(self) -> Available:
        """One device, or one of each known browser, whatever is here."""
        from ..web.browsers import KNOWN

        if self._stands_for not in BROWSER_PLATFORMS:
            return Available((Device("default", f"{self._stands_for}, simulated"),), self._engines)
        devices = (
            Device(key, f"{known.name}, simulated", {"browser": key, self._stands_for: {"software_adapter": None}})
            for key, known in KNOWN.items()
        )
        return Available(tuple(devices), self._engines, {"unavailable_browsers": {}})

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        """What the real platform cannot run at all is not simulated as if it could."""
        return platform(self._stands_for).unsupported(workload, engine)

    def open(self, workload: Workload, device: str, options: OpenOptions) -> SimulatedSession:
        engine = _engine_of_outputs(workload)
        outputs_options = OpenOptions(folder=options.folder, engine=engine, threads=options.threads, inputs=options.inputs)
        outputs = Cpu().open(workload, "default", outputs_options)
        return SimulatedSession(outputs, workload, options, self._seed, f"cpu · {engine}")


class SimulatedSession(RemoteSession):
    """A session with a clock of its own, which nothing but chance moves: no call takes the time that it returns."""

    clock_resolution_ns = 1

    def __init__(self, outputs: Session, workload: Workload, options: OpenOptions, seed: str, outputs_by: str) -> None:
        self._outputs = outputs
        self._inputs = options.inputs
        self._new_tokens = workload.new_tokens
        self._outputs_by = outputs_by
        self._random = random.Random(seed)
        self._level_ns = 1e6 * MEDIAN_MS * self._random.lognormvariate(0.0, LAUNCH_SPREAD)

    def timed_phases(self) -> dict[str, int]:
        self._outputs.load()
        self._outputs.compile()
        return {phase: self._draw_ns(ITERATIONS[phase]) for phase in ("fetch", "load", "compile")}

    def timed_first(self) -> tuple[Sample, dict[str, np.ndarray]]:
        if self._new_tokens is None:
            outputs = self._outputs.infer(self._inputs)
        else:
            outputs = self._outputs.generate(self._inputs, self._new_tokens, lambda: None)
        self._outputs.synchronize()
        return self._sample(ITERATIONS["first_inference"]), outputs

    def timed_samples(self, count: int) -> list[Sample]:
        return [self._sample() for _ in range(count)]

    def _sample(self, iterations: int = 1) -> Sample:
        """Tokens are evenly spaced."""
        total_ns, tokens = self._draw_ns(iterations), self._new_tokens or 0
        return Sample(total_ns, tuple(math.ceil(total_ns * (token + 1) / tokens) for token in range(tokens)))

    def _draw_ns(self, iterations: int) -> int:
        return round(self._level_ns * iterations * self._random.lognormvariate(0.0, ITERATION_SPREAD))

    def memory(self) -> Memory:
        """The weights only: what this process takes says nothing about the platform."""
        return Memory(self._outputs.memory().weights_bytes)

    def coverage(self) -> Coverage | None:
        return None

    def process_ids(self) -> Sequence[int]:
        return ()

    def close(self) -> None:
        self._outputs.close()

    def facts(self) -> dict[str, Any]:
        return {"simulated": DISTRIBUTION, "outputs_by": self._outputs_by}


def _engine_of_outputs(workload: Workload) -> str:
    """An engine that computes this workload on the CPU, LaunchError where none does."""
    found = Cpu().probe()
    if isinstance(found, Unavailable):
        raise LaunchError("load_failed", f"The outputs of a simulation are computed on the CPU. {found.reason} {found.remedy}")
    reasons = {
        engine: Cpu().unsupported(workload, engine) for engine in reversed(found.engines)
    }  # onnxruntime first: it starts sooner
    for engine, reason in reasons.items():
        if reason is None:
            return engine
    raise LaunchError(
        "unsupported", f"The outputs of a simulation are computed on the CPU. {' '.join(map(str, reasons.values()))}"
    )
