"""The contract of a platform. One file per platform; none knows of clocks, statistics or the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ..lazy_numpy import np
from ..spec import Workload

Tensors: TypeAlias = "Mapping[str, np.ndarray]"


@dataclass(frozen=True)
class Device:
    """One device of a platform: a short ``name`` used in targets, and facts for people and for the store."""

    name: str
    description: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Available:
    """``facts`` holds what was read from the platform just now (versions, features, limits); JSON-serialisable."""

    devices: tuple[Device, ...]
    engines: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unavailable:
    """``reason`` is a sentence; ``remedy`` is what a person can do about it, an exact command where there is one."""

    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Memory:
    """Bytes. ``device_peak_bytes`` is None where the device has no counter or shares the host's memory."""

    weights_bytes: int | None
    device_peak_bytes: int | None = None


@dataclass(frozen=True)
class Coverage:
    """Which provider ran the graph's nodes. ``provider`` is the one that was asked for; counts are nodes after the engine's own
    graph optimisation. A share below 1 means that nodes fell back, and is flagged wherever the result is shown."""

    provider: str
    nodes: dict[str, int]

    @property
    def share(self) -> float:
        total = sum(self.nodes.values())
        return self.nodes.get(self.provider, 0) / total if total else 0.0


class Session(ABC):
    """A model on a device in this process. ``measure`` calls the phases in order and owns the clock.

    ``folder`` is a prepared model (see ``models/prepared.py``). Every method blocks until its work is really done;
    where a device runs asynchronously, ``synchronize`` waits for it.
    """

    @abstractmethod
    def load(self) -> None:
        """Read the weights into memory (host or device)."""

    @abstractmethod
    def compile(self) -> None:
        """Build what executes (a session, a compiled model); nothing to do for an eager engine."""

    @abstractmethod
    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One forward pass; outputs are read back to NumPy arrays."""

    @abstractmethod
    def generate(self, inputs: Tensors, new_tokens: int, on_token: Callable[[], None]) -> dict[str, np.ndarray]:
        """Greedy decoding of exactly ``new_tokens`` tokens per sequence.

        ``on_token`` is called when each token's id has been read back. Returns ``token_ids`` int64 [batch, new_tokens] and
        ``logits`` float32 [batch, vocabulary], the scores from which the first token was chosen.
        """

    @abstractmethod
    def synchronize(self) -> None: ...

    @abstractmethod
    def memory(self) -> Memory: ...

    @abstractmethod
    def coverage(self) -> Coverage | None:
        """None where the engine cannot say which provider ran which node."""

    @abstractmethod
    def close(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        """What really ran: threads, adapter, driver, engine version. JSON-serialisable, stored with the launch."""
        return {}


@dataclass(frozen=True)
class Sample:
    """One timed iteration: total time, and for generation the time from its start at which each token was read back."""

    total_ns: int
    token_ns: tuple[int, ...] = ()


class RemoteSession(ABC):
    """A model in another place with its own clock (a page in a browser). It returns raw times; Python computes every statistic.

    The phases are the same as a Session's. Times are nanoseconds from the remote clock; ``clock_resolution_ns`` says how fine it is.
    """

    clock_resolution_ns: int

    @abstractmethod
    def timed_phases(self) -> dict[str, int]:
        """Run fetch, load and compile in order; nanoseconds of each."""

    @abstractmethod
    def timed_first(self) -> tuple[Sample, dict[str, np.ndarray]]:
        """The first inference (or generation), with its outputs."""

    @abstractmethod
    def timed_samples(self, count: int) -> list[Sample]:
        """``count`` further iterations, each timed with outputs read back, run without waiting for Python in between."""

    @abstractmethod
    def memory(self) -> Memory: ...

    @abstractmethod
    def coverage(self) -> Coverage | None: ...

    def time_coverage(self, coverage: Coverage | None) -> dict[str, Any]:
        """Facts on the share of time beside ``coverage``'s share of nodes: ``coverage_time_share``, or ``coverage_time_unknown`` with the
        reason. Asked last: it may take the model apart."""
        return {}

    @abstractmethod
    def process_ids(self) -> Sequence[int]:
        """Root processes of the remote place (the browser), whose trees are counted as the launch's host memory."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def facts(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class OpenOptions:
    """What a launch asks of a platform beyond the workload. ``threads`` None means the platform's default.

    ``inputs`` are the arrays that every iteration uses (a remote session gets them once). ``limits_s`` gives each phase's
    limit in seconds by phase name; a remote session enforces them itself, a local one is killed by its parent.
    """

    folder: Path
    engine: str
    browser: str | None = None
    threads: int | None = None
    inputs: Tensors = field(default_factory=dict)
    limits_s: Mapping[str, float] = field(default_factory=dict)


class Platform(ABC):
    """A place where models run. Found by the entry point group ``ipfs_accelerate_py.platforms``."""

    name: ClassVar[str]
    engines: ClassVar[tuple[str, ...]]  # all that it can run with, installed here or not
    least_warm_up_s: ClassVar[float] = 0.0  # a series that looks settled before this may yet become faster

    @abstractmethod
    def probe(self) -> Available | Unavailable:
        """Never raises; imports nothing heavy until it is called."""

    @abstractmethod
    def unsupported(self, workload: Workload, engine: str) -> str | None:
        """Why this workload cannot run here at all (a precision, say), or None. Asked before a launch, answered without one."""

    @abstractmethod
    def open(self, workload: Workload, device: str, options: OpenOptions) -> Session | RemoteSession: ...
