"""Joules of the processor and of an NVIDIA GPU, from the counters that the hardware keeps. They are read before and after the steady
phase, never inside timed code.

The processor's counter is RAPL's, as Linux shows it (https://docs.kernel.org/power/powercap/powercap.html); the GPU's is NVML's
``nvmlDeviceGetTotalEnergyConsumption`` (Volta and later, https://docs.nvidia.com/deploy/nvml-api/). Both count all that the device does:
the launch, what runs beside it, and what the device draws when idle.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import nvidia_smi

# Counters move in steps: RAPL's about every millisecond, a GPU's up to every tenth of a second. A shorter phase is not told from a step.
LEAST_S = {"processor": 0.1, "gpu": 1.0}
PROCESSOR, GPU = "processor", "gpu"


class Counter(Protocol):
    """Something that counts joules. ``range_j`` is where it starts again from 0, None where it does not."""

    @property
    def range_j(self) -> float | None: ...

    def joules(self) -> float: ...


@dataclass(frozen=True)
class Package:
    """One processor package of RAPL: a folder of /sys/class/powercap."""

    folder: Path
    range_j: float | None

    def joules(self) -> float:
        return int((self.folder / "energy_uj").read_text()) * 1e-6


@dataclass(frozen=True)
class Nvml:
    """One GPU, by the driver's library."""

    library: Any
    handle: ctypes.c_void_p
    range_j: float | None = None  # 64 bits of millijoules do not end

    def joules(self) -> float:
        total = ctypes.c_ulonglong()
        status = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(total))
        if status != 0:
            raise OSError(f"NVML answers {status} when its energy counter is read")
        return total.value * 1e-3


def packages(root: Path) -> tuple[list[Counter], str]:
    """RAPL's packages under ``root``/sys, or none and the reason. What a package contains (cores, memory) is counted by it or apart from it
    as the processor pleases, and left out."""
    folders = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))  # AMD's processors are listed by this name too
    found: list[Counter] = []
    for folder in folders:
        try:
            if not (folder / "name").read_text().startswith("package"):
                continue
            package = Package(folder, int((folder / "max_energy_range_uj").read_text()) * 1e-6)
            package.joules()
        except PermissionError:
            return (
                [],
                f"{folder / 'energy_uj'} is readable by root alone, as it can betray secrets to others (CVE-2020-8694): measure as root",
            )
        except (OSError, ValueError) as broken:
            return [], f"{folder} cannot be read: {broken}"
        found.append(package)
    return found, "" if found else "the processor shows no RAPL counter (/sys/class/powercap), as in most virtual machines"


def gpu() -> tuple[list[Counter], str]:
    """The one NVIDIA GPU that this process sees, or none and the reason."""
    rows = nvidia_smi.query("gpu", ("uuid",))
    if not rows:
        return [], "there is no NVIDIA GPU"
    if len(rows) > 1:
        return [], f"{len(rows)} GPUs are visible, and it is not known which works: show one with CUDA_VISIBLE_DEVICES"
    handle = ctypes.c_void_p()
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        uuid = str(rows[0]["uuid"]).encode()
        status = library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle))
        if status != 0:
            return [], f"NVML answers {status}"
        counter = Nvml(library, handle)
        counter.joules()
    except (OSError, AttributeError) as broken:  # no library, a GPU without the counter, a library without the function
        return [], f"the GPU has no energy counter: {broken}"
    return [counter], ""


@dataclass
class Meter:
    """The counters of this machine. ``start`` and ``stop`` are called around a phase; ``facts`` is what a launch keeps of it."""

    counters: dict[str, list[Counter]]
    missing: dict[str, str]
    _before: dict[str, list[float]] = field(default_factory=dict)
    _after: dict[str, list[float]] = field(default_factory=dict)
    _times: list[float] = field(default_factory=list)

    @classmethod
    def here(cls, root: Path = Path("/")) -> Meter:
        found = {PROCESSOR: packages(root), GPU: gpu()}
        return cls(
            {name: counters for name, (counters, _) in found.items() if counters},
            {name: reason for name, (_, reason) in found.items() if reason},
        )

    def start(self) -> None:
        self._before = self._read()
        self._times = [time.perf_counter()]

    def stop(self) -> None:
        self._times.append(time.perf_counter())
        self._after = self._read()

    def _read(self) -> dict[str, list[float]]:
        found = {}
        for name, counters in list(self.counters.items()):
            try:
                found[name] = [counter.joules() for counter in counters]
            except OSError as broken:  # no reason to lose the launch
                del self.counters[name]
                self.missing[name] = f"its counter could not be read again: {broken}"
        return found

    def facts(self, iterations: int) -> dict[str, Any]:
        """``joules`` by counter, over ``seconds`` and ``iterations``; ``missing`` has the reason of each that is not there."""
        seconds = self._times[1] - self._times[0]
        joules, missing = {}, dict(self.missing)
        for name, counters in self.counters.items():
            if seconds < LEAST_S[name]:
                missing[name] = (
                    f"the steady phase took {seconds:.2g} s, less than the {LEAST_S[name]:g} s that its counter needs"
                )
                continue
            pairs = zip(counters, self._before[name], self._after[name], strict=True)
            joules[name] = sum(_grown(after - before, counter.range_j) for counter, before, after in pairs)
        return {"joules": joules, "seconds": seconds, "iterations": iterations, "missing": missing}


def _grown(difference: float, range_j: float | None) -> float:
    """A counter that began again from 0 once meanwhile has grown by its range more."""
    return difference + range_j if difference < 0 and range_j is not None else difference


def per_iteration(facts: Mapping[str, Any] | None, on_gpu: bool) -> float | None:
    """Joules of an iteration from a launch's ``facts``: the GPU's and, where it has a counter, the processor's that fed it; the processor's
    alone for work on it. None where the device that worked was not counted."""
    if not facts or not facts["iterations"]:
        return None
    joules = facts["joules"]
    wanted = GPU if on_gpu else PROCESSOR
    if wanted not in joules:
        return None
    total = sum(joules.values()) if on_gpu else joules[PROCESSOR]
    return float(total / facts["iterations"])
