"""What passing data between training processes costs here: alpha-beta by collective, measured with torch.distributed and kept.

The model is Hockney's (1994, https://doi.org/10.1016/S0167-8191(06)80021-9): seconds = alpha + bytes / beta, bytes those of the whole
tensor, fitted to relative errors so that small messages count as much as large ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UnavailableError, UserError, nearest
from ..lazy_numpy import np
from ..paths import cache_folder

BACKENDS = ("gloo", "nccl")
LIMIT_S = 600.0  # a busy machine switches between the processes at every barrier
REPEATS = 9
PROCESSES_UP_TO = 64  # each is a Python with torch


@dataclass(frozen=True)
class Line:
    """``seconds(bytes)`` of one collective. ``worst`` is the largest relative error of the fit at a size that was measured."""

    alpha_s: float
    bytes_per_s: float
    worst: float = 0.0

    def seconds(self, size: float) -> float:
        return self.alpha_s + size / self.bytes_per_s


@dataclass(frozen=True)
class Communication:
    """``lines`` by collective (all_reduce, all_gather, reduce_scatter), for ``processes`` of them. ``source`` is measured, datasheet or
    assumed; rates are those that each process reached while all computed at once, None where they were not probed."""

    processes: int
    lines: Mapping[str, Line]
    source: str
    backend: str
    device: str
    matmul_flops_per_s: Mapping[str, float] | None = None
    memory_bytes_per_s: float | None = None
    measured_at: str | None = None
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit(seconds: Mapping[int, float]) -> Line:
    """Least squares of the relative error, both coefficients at least 0. Sizes in bytes to seconds; two sizes or more."""
    from scipy.optimize import nnls

    sizes = np.array([float(size) for size in seconds])
    times = np.array(list(seconds.values()))
    (alpha, slope), _ = nnls(np.stack([1 / times, sizes / times], axis=1), np.ones(len(times)))
    fitted = alpha + slope * sizes
    return Line(float(alpha), float(1 / slope) if slope > 0 else float("inf"), float(np.abs(fitted / times - 1).max()))


def probe(processes: int, backend: str = "gloo", threads: int | None = None, repeats: int = REPEATS) -> Communication:
    """Measure with ``processes`` new processes on this machine. UserError for a wrong number or backend,
    UnavailableError where torch or its backend cannot start."""
    if not 1 <= processes <= PROCESSES_UP_TO:
        raise UserError(
            f"Collectives are probed with at most {PROCESSES_UP_TO} processes, 1 process (its rates alone) or more, not {processes}."
        )
    if backend not in BACKENDS:
        raise nearest(backend, BACKENDS, "backend of collectives")
    from ..platforms.processor import default_threads

    threads = threads or max(1, default_threads() // processes)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", f"{__package__}.collectives_worker", str(Path(folder) / "rendezvous")]
        workers: list[subprocess.Popen[str]] = []
        try:
            for rank in range(processes):
                started = subprocess.Popen(
                    [*command, str(rank), str(processes), backend, str(threads), str(repeats)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                )
                workers.append(started)
        except BaseException:  # those that run would wait for the ones that do not
            for worker in workers:
                worker.kill()
            raise
        answer = _answer(workers, backend)
    return Communication(
        processes=processes,
        lines={name: fit({int(size): value for size, value in sizes.items()}) for name, sizes in answer["seconds"].items()},
        source="measured",
        backend=backend,
        device=answer["device"],
        matmul_flops_per_s=answer["matmul_flops_per_s"],
        memory_bytes_per_s=answer["memory_bytes_per_s"],
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        threads=threads,
    )


def _answer(workers: list[subprocess.Popen[str]], backend: str) -> dict[str, Any]:
    """What rank 0 printed. One worker that fails ends the others, which would wait for it; so does the limit."""
    with ThreadPoolExecutor(len(workers)) as readers:
        reading = {readers.submit(worker.communicate): worker for worker in workers}
        failed, complaint = None, ""
        try:
            for done in as_completed(reading, timeout=LIMIT_S):
                if reading[done].returncode != 0:
                    failed, complaint = reading[done], done.result()[1]
                    break
        except TimeoutError as error:
            raise UnavailableError(f"The probe of {backend} collectives did not end within {LIMIT_S:g} s.") from error
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
        printed = {reading[future]: future.result()[0] for future in reading}
    if failed is not None:
        last = complaint.strip().splitlines()[-1] if complaint.strip() else f"status {failed.returncode}"
        raise UnavailableError(f"{backend} collectives cannot run here: {last}.")
    return json.loads(printed[workers[0]].strip().splitlines()[-1])


def saved_file(processes: int, backend: str) -> Path:
    """Where this machine's probe is kept, by the machine's identity."""
    from ..measure.machine import fingerprint
    from ..spec import identity

    return cache_folder() / "collectives" / f"{identity(fingerprint())}-{backend}-{processes}.json"


def save(found: Communication) -> Path:
    file = saved_file(found.processes, found.backend)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    return partial.replace(file)


def load(processes: int, backend: str) -> Communication | None:
    """The probe that ``save`` kept of this machine, None where there is none."""
    file = saved_file(processes, backend)
    if not file.is_file():
        return None
    value = json.loads(file.read_text(encoding="utf-8"))
    return Communication(**{**value, "lines": {name: Line(**line) for name, line in value["lines"].items()}})
