"""One launch, in a process of its own: the child's half (``python -m ipfs_accelerate_py.measure.launch``).

The parent writes one JSON job on standard input. The child tells each phase it enters, one JSON line each, on its standard
output; libraries that print there are sent to standard error instead. It spools its record itself, so that a launch that ended is
kept even when the parent has died, and it dies with its parent.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LaunchError, UnavailableError, UserError
from ..platforms.base import OpenOptions, RemoteSession, Session
from ..spec import Spec
from .record import LaunchRecord
from .stopping import Limits

if TYPE_CHECKING:
    from ..platforms.simulated import Simulated
    from .energy import Meter


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a child needs to know. ``phase_limits_s`` is the parent's patience, ``limits`` how long to measure."""

    campaign_id: str
    spec: Spec
    launch_index: int
    order_index: int
    folder: str  # the prepared model
    spool: str
    limits: Limits
    phase_limits_s: dict[str, float]
    count_nodes: bool = True  # by provider; in a browser that costs a second session, so one launch of a spec pays for all
    simulation_seed: int | None = None  # of made-up times; None measures
    machine: dict[str, Any] | None = None  # its fingerprint, where the parent has taken it
    imported_ahead: bool = False  # this process began, and imported, while the launch before it was measured
    imports_beside: bool = False  # the next launch's process begins, and imports, while this one is measured

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        raw = json.loads(text)
        return cls(**{**raw, "spec": Spec.from_dict(raw["spec"]), "limits": Limits(**raw["limits"])})

    def begin(self) -> LaunchRecord:
        """The record of this launch, which has just begun."""
        provenance = "measured" if self.simulation_seed is None else "simulated"
        return LaunchRecord.begin(self.campaign_id, self.spec, self.launch_index, self.order_index, provenance)


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the parent's process group is all there is."""
    if sys.platform == "linux":
        import ctypes
        import signal

        parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def perform(job: Job, on_phase: Callable[[str], None]) -> LaunchRecord:
    """Run the job in this process and return its record, whatever happened to the launch."""
    from . import energy, machine, noise

    record = replace(job.begin(), machine=job.machine or machine.fingerprint(), environment=machine.environment())
    meter = energy.Meter.here() if job.simulation_seed is None else None
    before = noise.snapshot()
    began = time.perf_counter_ns()
    phase = "start"

    def entered(name: str) -> None:
        nonlocal phase
        phase = name
        on_phase(name)
        if meter and name == "steady":  # it is entered before its first iteration
            meter.start()

    try:
        record = _measure(job, record, began, entered, meter)
    except LaunchError as error:
        status = "unsupported" if error.error_class == "unsupported" else "failed"
        record = replace(record, status=status, error_class=error.error_class, error_message=str(error), error_phase=phase)
    except (UnavailableError, UserError, OSError) as error:  # what was there when the campaign was planned is not there now
        error_class = "browser_start" if job.spec.target.browser and phase == "start" else "load_failed"
        record = replace(record, error_class=error_class, error_message=str(error), error_phase=phase)
    except MemoryError as error:
        message = str(error) or "Python could not allocate memory"
        record = replace(record, error_class="out_of_memory", error_message=message, error_phase=phase)
    after = noise.snapshot()
    return replace(
        record,
        duration_s=(time.perf_counter_ns() - began) / 1e9,
        noise={"before": before, "after": after, "warnings": noise.warnings(before, after)},
    )


def _measure(job: Job, record: LaunchRecord, began: int, entered: Callable[[str], None], meter: Meter | None) -> LaunchRecord:
    from ..models.prepared import Manifest, load_tensors
    from ..platforms.registry import platform
    from . import accuracy
    from .protocol import measure
    from .stopwatch import stopwatch

    workload, target = job.spec.workload, job.spec.target
    folder = Path(job.folder)
    manifest = Manifest.read(folder)
    inputs = load_tensors(folder / "inputs.npz")
    entered("start")
    place = platform(target.platform) if job.simulation_seed is None else _stand_in(job)
    limits = job.limits
    if place.least_warm_up_s > limits.warm_up_min_s:
        least_s = place.least_warm_up_s
        limits = replace(limits, warm_up_min_s=least_s, warm_up_max_s=2 * least_s, warm_up_max_iterations=100_000)
    device, threads = target.device_and_threads
    session = place.open(
        workload,
        device,
        OpenOptions(
            folder=folder,
            engine=target.engine,
            browser=target.browser,
            threads=threads,
            inputs=inputs,
            limits_s=job.phase_limits_s,
        ),
    )
    try:
        start_ns = time.perf_counter_ns() - began
        measurement = measure(stopwatch(session, inputs, workload.new_tokens), limits, entered)
        if meter:
            meter.stop()
        entered("finish")
        record = replace(
            record,
            status="ok",
            phases_ns={**({} if job.imported_ahead else {"start": start_ns}), **measurement.phases_ns},
            warm_up_ns=measurement.warm_up_ns,
            samples_ns=measurement.samples_ns,
            first_token_ns=measurement.first_token_ns,
            per_token_ns=measurement.per_token_ns,
            steady=measurement.steady,
            stop_reason=measurement.stop_reason,
            clock_resolution_ns=measurement.clock_resolution_ns,
            accuracy=accuracy.check(
                measurement.outputs,
                load_tensors(folder / "reference.npz"),
                workload.precision,
                workload.task,
                manifest.reference_rows,
            ),
            facts={
                "reference_device": manifest.facts.get(
                    "reference_device", "cpu"
                ),  # a folder made before it was told has it from there
                "clock_limited": measurement.clock_limited,
                "process_id": os.getpid(),
                **({"energy": meter.facts(len(measurement.samples_ns))} if meter else {}),
                **({"imported_ahead": True} if job.imported_ahead else {}),
                **({"imports_beside": True} if job.imports_beside else {}),
            },
        )
        return _described(record, session, job.count_nodes, entered)
    finally:
        session.close()


def _stand_in(job: Job) -> Simulated:
    from ..platforms.simulated import Simulated

    target = job.spec.target
    return Simulated(target.platform, (target.engine,), f"{job.simulation_seed} {job.spec.hash} {job.launch_index}")


def _described(
    record: LaunchRecord, session: Session | RemoteSession, count_nodes: bool, entered: Callable[[str], None]
) -> LaunchRecord:
    """The record with what the session says of itself. What fails here takes no sample with it: its reason is a fact."""
    from . import memory

    try:
        host_peak = (
            memory.tree_peak_bytes(session.process_ids()) if isinstance(session, RemoteSession) else memory.own_peak_bytes()
        )
        session_memory = session.memory()
        facts: dict[str, Any] = {**session.facts(), **record.facts}
        record = replace(
            record,
            host_peak_bytes=host_peak,
            device_peak_bytes=session_memory.device_peak_bytes,
            weights_bytes=session_memory.weights_bytes,
            software_adapter=facts.pop("software_adapter", None),
            bytes_read_back=facts.pop("bytes_read_back", None),
            facts=facts,
        )
        if count_nodes or isinstance(session, Session):
            entered("coverage")
            record = replace(record, coverage=session.coverage())
            if isinstance(session, RemoteSession):
                entered("node_times")
                record = replace(record, facts={**record.facts, **session.time_coverage(record.coverage)})
    except LaunchError as error:
        record = replace(record, facts={**record.facts, "not_described": f"{error.error_class}: {error}"})
    return record


def main() -> None:
    die_with_parent()
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    job = Job.from_json(sys.stdin.readline())

    def tell(**message: str) -> None:
        try:
            progress.write(json.dumps(message) + "\n")
        except BrokenPipeError:
            os._exit(1)  # the campaign is gone: a launch that nobody watches is not a failed one

    record = perform(job, lambda name: tell(phase=name))
    from ..store.spool import spool

    spool(record, Path(job.spool))
    problem = {"error_class": record.error_class, "error_message": record.error_message or ""} if record.error_class else {}
    tell(done=record.status, **problem)


if __name__ == "__main__":
    main()
