"""One interface to time a session, wherever its clock is. The only place that times native platforms."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from ..errors import LaunchError
from ..platforms.base import RemoteSession, Sample, Session, Tensors

Outputs = dict[str, np.ndarray]

REMOTE_PHASES = "fetch, load, compile"  # announced as one: only the remote place knows where within them it is


class Stopwatch(ABC):
    """Times are nanoseconds of one clock, whose least step is ``clock_resolution_ns``. Outputs are read back inside what is timed."""

    clock_resolution_ns: int

    @abstractmethod
    def phases(self, on_phase: Callable[[str], None]) -> dict[str, int]:
        """Run everything before the first inference; ``on_phase`` is called with the name of each phase before it starts."""

    @abstractmethod
    def first(self) -> tuple[Sample, Outputs]:
        """The first inference or generation."""

    @abstractmethod
    def samples(self, count: int) -> list[Sample]:
        """``count`` further iterations, one sample each."""


class LocalStopwatch(Stopwatch):
    """A session in this process. ``new_tokens`` None means single inferences, otherwise generation of so many tokens."""

    def __init__(self, session: Session, inputs: Tensors, new_tokens: int | None) -> None:
        self._session = session
        self._inputs = inputs
        self._new_tokens = new_tokens
        self.clock_resolution_ns = max(1, round(time.get_clock_info("perf_counter").resolution * 1e9))

    def phases(self, on_phase: Callable[[str], None]) -> dict[str, int]:
        times = {}
        for name, work in (("load", self._session.load), ("compile", self._session.compile)):
            on_phase(name)
            start = time.perf_counter_ns()
            work()
            self._session.synchronize()
            times[name] = time.perf_counter_ns() - start
        return times

    def first(self) -> tuple[Sample, Outputs]:
        return self._inference() if self._new_tokens is None else self._generation(self._new_tokens)

    def samples(self, count: int) -> list[Sample]:
        return [self.first()[0] for _ in range(count)]

    def _inference(self) -> tuple[Sample, Outputs]:
        session, inputs = self._session, self._inputs
        session.synchronize()  # nothing of an earlier iteration may end inside this one
        start = time.perf_counter_ns()
        outputs = session.infer(inputs)
        session.synchronize()
        return Sample(time.perf_counter_ns() - start), outputs

    def _generation(self, new_tokens: int) -> tuple[Sample, Outputs]:
        session, inputs = self._session, self._inputs
        ends: list[int] = []
        session.synchronize()
        start = time.perf_counter_ns()
        outputs = session.generate(inputs, new_tokens, lambda: ends.append(time.perf_counter_ns()))
        session.synchronize()
        total_ns = time.perf_counter_ns() - start
        if len(ends) != new_tokens:
            raise LaunchError("inference_failed", f"the session generated {len(ends)} tokens where {new_tokens} were asked for")
        return Sample(total_ns, tuple(end - start for end in ends)), outputs


class RemoteStopwatch(Stopwatch):
    """A session with a clock of its own: its raw times are passed on as they are."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session

    @property
    def clock_resolution_ns(self) -> int:  # type: ignore[override]  # known once the remote place has connected
        return self._session.clock_resolution_ns

    def phases(self, on_phase: Callable[[str], None]) -> dict[str, int]:
        on_phase(REMOTE_PHASES)
        return dict(self._session.timed_phases())

    def first(self) -> tuple[Sample, Outputs]:
        return self._session.timed_first()

    def samples(self, count: int) -> list[Sample]:
        samples = self._session.timed_samples(count)
        if len(samples) != count:
            raise LaunchError("page_error", f"the page returned {len(samples)} samples where {count} were asked for")
        return samples


def stopwatch(session: Session | RemoteSession, inputs: Tensors, new_tokens: int | None) -> Stopwatch:
    """The stopwatch for a session. A remote session has its inputs and its number of tokens already."""
    return RemoteStopwatch(session) if isinstance(session, RemoteSession) else LocalStopwatch(session, inputs, new_tokens)
