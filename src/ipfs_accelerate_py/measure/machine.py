"""Which machine and which software a launch ran on. The same on every run on one machine; no name of the machine or of its user."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from . import nvidia_smi

# Distributions whose version may change a result, where they are installed.
DISTRIBUTIONS = (
    "ipfs_accelerate_py",
    "duckdb",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
)


def fingerprint() -> dict[str, Any]:
    """Hardware and operating system; JSON-serialisable, None where a fact is not to be had.

    ``machine_id`` is a hash of the installation's own identifier, so that two equal machines differ and neither is named.
    ``memory_bytes`` is rounded to 256 MiB: kernels keep a little more or less of it for themselves.
    """
    return {
        "machine_id": _machine_id(),
        "architecture": platform.machine(),
        "cpu_model": _cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "memory_bytes": round(psutil.virtual_memory().total / 2**28) * 2**28,
        "os": platform.system(),
        "os_version": _os_version(),
        "kernel": platform.release(),
        "virtual_machine": _virtual_machine(),
        "gpus": _gpus(),
    }


def environment() -> dict[str, Any]:
    """Python and the versions of what is installed of DISTRIBUTIONS; our own commit where this is a git checkout."""
    return {
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "packages": {name: version for name in DISTRIBUTIONS if (version := _version(name)) is not None},
        **_checkout(Path(__file__)),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _checkout(file: Path) -> dict[str, Any]:
    """The commit of the checkout that tracks this file, and whether tracked files were changed since.

    An installed copy may lie inside some other project's checkout, which does not track it: both are None then.
    """
    folder = str(file.parent)
    if _output("git", "-C", folder, "ls-files", "--error-unmatch", file.name) is None:
        return {"commit": None, "modified": None}
    status = _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _output("git", "-C", folder, "rev-parse", "HEAD"), "modified": None if status is None else bool(status)}


def _machine_id() -> str | None:
    raw: str | None = None
    if sys.platform == "linux":
        file = Path("/etc/machine-id")
        raw = file.read_text().strip() if file.exists() else None
    elif sys.platform == "darwin":
        found = re.search(r'"IOPlatformUUID" = "([^"]+)"', _output("ioreg", "-rd1", "-c", "IOPlatformExpertDevice") or "")
        raw = found[1] if found else None
    elif sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            raw = winreg.QueryValueEx(key, "MachineGuid")[0]
    # machine-id(5) asks that it be hashed with something of the application's own before it is shown.
    return hashlib.sha256(f"ipfs_accelerate_py:{raw}".encode()).hexdigest()[:16] if raw else None


def _cpu_model() -> str | None:
    if sys.platform == "linux":
        fields = dict(re.findall(r"^(model name|Hardware|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
        return fields.get("model name") or fields.get("Hardware") or fields.get("Model")
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or None


def _os_version() -> str:
    if sys.platform == "linux":
        try:
            return platform.freedesktop_os_release()["PRETTY_NAME"]
        except (OSError, KeyError):
            return platform.version()
    return platform.mac_ver()[0] if sys.platform == "darwin" else platform.version()


def _virtual_machine() -> bool | None:
    """Whether a hypervisor is below, as x86 processors tell; None elsewhere."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return None if flags is None else "hypervisor" in flags[1].split()


def _gpus() -> list[dict[str, Any]] | None:
    """NVIDIA GPUs; None where their tool is not installed. Other GPUs are named by the platforms that use them."""
    rows = nvidia_smi.query("gpu", ("name", "memory.total", "driver_version"))
    if rows is None:
        return None
    return [
        {
            "name": row["name"],
            "memory_bytes": None if row["memory.total"] is None else int(row["memory.total"]) * 2**20,
            "driver": row["driver_version"],
        }
        for row in rows
    ]


def _output(*command: str) -> str | None:
    """What the command prints; None where it is missing or fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
