"""Facts about the processor that inference depends on, and how many threads to use by default."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

# Instruction sets that inference kernels choose by, as Linux names them (x86, then Arm).
FEATURES = (
    *("f16c", "fma", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)


def processor_facts() -> dict[str, Any]:
    """Model, cores, instruction sets, memory. ``features`` is None where this system does not tell."""
    model, features = _model_and_features()
    return {
        "model": model,
        "architecture": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": default_threads(),
        "features": features,
        "memory_bytes": psutil.virtual_memory().total,
    }


def default_threads() -> int:
    """Physical cores that this process may use: its affinity, at most the quota of its control group."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    cores = {_core(cpu) for cpu in usable}
    return max(1, min(len(cores), _quota()))


def _core(cpu: int) -> str:
    """Equal for the hardware threads of one core."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text().strip() if siblings.exists() else str(cpu)


def _quota() -> int:
    """Processors that a container may use at most; more threads than that only get throttled."""
    maximum = Path("/sys/fs/cgroup/cpu.max")
    quota, period = maximum.read_text().split() if maximum.exists() else ("max", "1")
    return sys.maxsize if quota == "max" else math.ceil(int(quota) / int(period))


def _model_and_features() -> tuple[str, list[str] | None]:
    if sys.platform == "linux":
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        info = {key.strip(): value.strip() for key, _, value in lines}
        flags = set(info.get("flags", info.get("Features", "")).split())
        return info.get("model name") or platform.processor() or platform.machine(), [
            name for name in FEATURES if name in flags
        ]
    if sys.platform == "darwin":
        words = _sysctl("machdep.cpu.features", "machdep.cpu.leaf7_features").lower().split()
        return _sysctl("machdep.cpu.brand_string").strip(), [name for name in FEATURES if name in words] or None
    return platform.processor(), None


def _sysctl(*names: str) -> str:
    """Values of those names that this Mac has (Apple silicon lacks the x86 ones)."""
    return subprocess.run(["sysctl", "-n", *names], capture_output=True, text=True, check=False).stdout
