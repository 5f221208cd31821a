"""What else may disturb a measurement on this machine, before and after it. A fact that is not to be had is None, never a guess."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil

from . import nvidia_smi

# Bits of clocks_event_reasons.active that mean "slower than it could be" (NVML, nvmlClocksEventReasons).
GPU_SLOWDOWNS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


def snapshot(root: Path = Path("/")) -> dict[str, Any]:
    """JSON-serialisable facts of this moment. ``root`` is where /sys and /proc are. Counters count since the machine's start."""
    processors = root / "sys/devices/system/cpu"
    swap, memory, times = psutil.swap_memory(), psutil.virtual_memory(), psutil.cpu_times()
    battery = getattr(psutil, "sensors_battery", lambda: None)()
    return {
        "monotonic_s": time.monotonic(),
        "load_average_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "logical_cpus": psutil.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governors": sorted({_read(path) for path in processors.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None}) or None,
        "boost": _boost(processors),
        "cpu_temperature_c": _temperature(),
        "cpu_throttle_count": _total(processors.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")),
        "cpu_stolen_s": getattr(times, "steal", None),
        "on_ac_power": None if battery is None else battery.power_plugged,
        "battery_percent": None if battery is None else battery.percent,
        "memory_available_bytes": memory.available,
        "memory_total_bytes": memory.total,
        "swap_used_bytes": swap.used,
        "swapped_out_bytes": swap.sout,
        "gpus": _gpus(),
        "foreign_gpu_pids": _foreign_gpu_pids(),
    }


def warnings(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What in two snapshots may have disturbed the measurement between them, in plain words."""
    found = []
    load, processors = before["load_average_1m"], before["usable_cpus"] or before["logical_cpus"]
    # The load after the launch is mostly the launch's own.
    if load is not None and processors and load > processors:
        found.append(f"The load average was {load:.1f} on {processors} CPUs before the start: other work was running.")
    if any(governor != "performance" for governor in before["governors"] or ()):
        found.append(f"The CPU frequency governor is {', '.join(before['governors'])}: the clock rate may follow the load.")
    if False in (before["on_ac_power"], after["on_ac_power"]):
        found.append("The machine ran on battery.")
    if (throttled := _growth(before, after, "cpu_throttle_count")) > 0:
        found.append(f"The CPU was throttled for its temperature {throttled:.0f} times.")
    elapsed = after["monotonic_s"] - before["monotonic_s"]
    stolen = _growth(before, after, "cpu_stolen_s") / (elapsed * before["logical_cpus"]) if elapsed > 0 else 0
    if stolen > 0.01:
        found.append(f"The hypervisor gave {stolen:.0%} of this machine's CPU time to others.")
    if (swapped := _growth(before, after, "swapped_out_bytes")) > 0:
        found.append(f"{swapped / 2**20:.0f} MiB were swapped out: memory was short.")
    for gpu in after["gpus"] or ():
        if gpu["slowdowns"]:
            found.append(f"GPU {gpu['index']} was slowed down at the end: {', '.join(gpu['slowdowns'])}.")
    if foreign := sorted({*(before["foreign_gpu_pids"] or ()), *(after["foreign_gpu_pids"] or ())}):
        found.append(f"Other processes used the GPU: {', '.join(map(str, foreign))}.")
    return found


def _growth(before: dict[str, Any], after: dict[str, Any], counter: str) -> float:
    """0 where the counter is not to be had: nothing is known against the measurement."""
    return 0 if before[counter] is None or after[counter] is None else after[counter] - before[counter]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:  # absent, or not for this user
        return None


def _total(paths: Any) -> int | None:
    values = [int(value) for value in map(_read, paths) if value is not None]
    return sum(values) if values else None


def _boost(processors: Path) -> bool | None:
    if (value := _read(processors / "cpufreq/boost")) is not None:
        return value == "1"
    if (value := _read(processors / "intel_pstate/no_turbo")) is not None:
        return value == "0"
    return None


def _temperature() -> float | None:
    """The hottest sensor of the processor in degrees Celsius. psutil names sensors by driver."""
    sensors: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    drivers = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")
    return max((entry.current for driver in drivers for entry in sensors.get(driver, ())), default=None)


def _gpus() -> list[dict[str, Any]] | None:
    """Temperature and slowdowns of each NVIDIA GPU. Drivers before 535 know the reasons by an older name."""
    for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
        rows = nvidia_smi.query("gpu", ("index", "temperature.gpu", reasons))
        if rows is not None:
            return [
                {
                    "index": nvidia_smi.whole(row["index"]),
                    "temperature_c": nvidia_smi.whole(row["temperature.gpu"]),
                    "slowdowns": _slowdowns(nvidia_smi.whole(row[reasons], base=16)),
                }
                for row in rows
            ]
    return None


def _slowdowns(reasons: int | None) -> list[str] | None:
    return None if reasons is None else [name for bit, name in GPU_SLOWDOWNS.items() if reasons & bit]


def _foreign_gpu_pids() -> list[int] | None:
    """Processes that compute on a GPU and are neither this one nor its parents or children."""
    rows = nvidia_smi.query("compute-apps", ("pid",))
    if rows is None:
        return None
    this = psutil.Process()
    ours = {process.pid for process in (this, *this.parents(), *this.children(recursive=True))}
    return sorted({pid for row in rows if (pid := nvidia_smi.whole(row["pid"])) is not None} - ours)
