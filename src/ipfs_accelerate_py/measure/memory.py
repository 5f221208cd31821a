"""Peak memory of a launch from the kernel's own high-water marks, read once at the end: nothing polls beside the measurement."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


def own_peak_bytes() -> int:
    """Peak resident memory of this process, in bytes, since it began to run its program."""
    if sys.platform == "linux":
        # ru_maxrss would include the parent that forked this process; VmHWM begins anew with the program (proc_pid_status(5)).
        peak = _status_bytes(psutil.Process().pid, "VmHWM")
        assert peak is not None, "a running Linux process has VmHWM"
        return peak
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024  # bytes on macOS, KiB elsewhere (getrusage(2))


@dataclass(frozen=True)
class TreeMemory:
    """Memory of a tree of processes, in bytes; None where the system does not tell.

    ``peak_bytes`` is the sum of each living process's own peak. It is an upper bound of the tree's peak: pages shared between
    processes are counted once for each, and the peaks need not coincide. Processes that have ended are not in it.
    ``proportional_bytes`` is what the tree holds now with each shared page divided among its users (PSS).
    """

    processes: int
    peak_bytes: int | None
    proportional_bytes: int | None


def tree_memory(roots: Iterable[int]) -> TreeMemory:
    """Memory of the processes ``roots`` and all their descendants."""
    family = _family(roots)
    peaks = {pid: peak for pid in family if (peak := _peak_bytes(pid)) is not None}
    shares = [_proportional_bytes(pid) for pid in peaks]
    known = [share for share in shares if share is not None]
    return TreeMemory(
        processes=len(family),
        peak_bytes=sum(peaks.values()) if peaks else None,
        # A sum that leaves processes out would look like a small one.
        proportional_bytes=sum(known) if known and len(known) == len(shares) else None,
    )


def tree_peak_bytes(roots: Iterable[int]) -> int | None:
    """``tree_memory(roots).peak_bytes``: shared pages are counted once for each process."""
    return tree_memory(roots).peak_bytes


def _family(roots: Iterable[int]) -> set[int]:
    family: set[int] = set()
    for root in roots:
        try:
            process = psutil.Process(root)
            family |= {root, *(child.pid for child in process.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue  # ended: it has no memory to tell
    return family


def _peak_bytes(pid: int) -> int | None:
    """None for a process that has just ended, and on systems that tell no other process's peak (macOS)."""
    if sys.platform == "linux":
        return _status_bytes(pid, "VmHWM")
    try:
        return getattr(psutil.Process(pid).memory_info(), "peak_wset", None)
    except psutil.NoSuchProcess:
        return None


def _status_bytes(pid: int, field: str) -> int | None:
    return _kernel_bytes(Path(f"/proc/{pid}/status"), field)


def _proportional_bytes(pid: int) -> int | None:
    """None off Linux, and where the kernel refuses: a browser's sandboxed processes may only be read by root."""
    return _kernel_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def _kernel_bytes(path: Path, field: str) -> int | None:
    """The value of a line ``Field:   123 kB``."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
