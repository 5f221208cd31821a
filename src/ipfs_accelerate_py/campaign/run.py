"""Executing a plan: prepare the models, then one launch after another, each spooled as it ends and ingested by this process alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import LaunchError
from ..measure import machine
from ..measure.launch import Job
from ..measure.record import LaunchRecord
from ..measure.stopping import Limits
from ..spec import Spec
from ..store.connection import StoreBusyError
from ..store.spool import spool, spool_path
from ..store.writer import Store
from .child import Child, run_child, start_child
from .estimate import duration_row, expected_s
from .plan import Plan
from .prepare_plan import prepare_plan

# Seconds that a phase may take before its launch is killed. They bound a hang, not a measurement (that is stopping.Limits), so they
# are generous: whisper small took 100 s for its first inference on a software adapter (data/reference/two-cores-without-gpu).
PHASE_LIMITS_S = {"default": 120.0, "compile": 300.0, "first_inference": 180.0, "warm_up": 180.0, "steady": 240.0}
PHASE_LIMITS_S["coverage"] = PHASE_LIMITS_S["compile"]  # the model is compiled once more to have its nodes counted
PHASE_LIMITS_S["node_times"] = PHASE_LIMITS_S["compile"] + PHASE_LIMITS_S["first_inference"]  # and again to have them timed

LAUNCH = "ipfs_accelerate_py.measure.launch"
TORCH_IMPORTS = (
    "ipfs_accelerate_py.store.spool",
    "ipfs_accelerate_py.models.synthetic",
    "transformers.modeling_utils",
    "ipfs_accelerate_py.platforms.torch_session",
)


@dataclass
class Observer:
    """What a campaign tells while it runs. The defaults are silent."""

    began: Callable[[str], None] = lambda campaign_id: None
    preparing: Callable[[str], None] = lambda label: None
    launching: Callable[[Spec, int, int, int], None] = lambda spec, index, position, total: None
    phase: Callable[[str], None] = lambda name: None
    ended: Callable[[Spec, tuple[str, str] | None, float], None] = lambda spec, problem, seconds: None
    warning: Callable[[str], None] = lambda sentence: None
    stopped: Callable[[int], None] = lambda left: None  # the time was over with so many launches left


def run_campaign(
    plan: Plan,
    store: Store,
    cache: Path,
    *,
    observer: Observer,
    command: str,
    resume: bool = False,
    phase_limits_s: Mapping[str, float] = PHASE_LIMITS_S,
    jobs: int | None = None,
    budget_s: float | None = None,
    past: Iterable[Mapping[str, Any]] = (),
) -> str:
    """Run what is left of the plan and return the campaign's id. On KeyboardInterrupt everything that ended is in the store.

    With ``resume``, launches that an unfinished campaign of the same request already holds are not run again. ``jobs`` models are
    prepared at a time. No launch begins that would end, by the durations of ``past`` (rows as ``estimate`` takes them) and of this campaign
    so far, later than ``budget_s`` seconds from now, preparation included; the campaign is then unfinished and can be resumed.
    """
    deadline = None if budget_s is None else time.monotonic() + budget_s
    with store.campaign_lock():
        _ingest(store, observer)
        campaign_id, done = _campaign(plan, store, command, resume, observer)
        observer.began(campaign_id)
        prepared = prepare_plan(plan, cache, jobs=jobs, preparing=observer.preparing, warning=observer.warning)
        folders = prepared.folders
        lost = {key: prepared.lost[work] for key, spec in plan.specs.items() if (work := spec.workload.hash) in prepared.lost}
        _spool_impossible(plan, lost, store, campaign_id, done)
        host = machine.fingerprint()
        ahead: Child | None = None
        counted: set[str] = set()  # specs whose nodes a launch has counted by provider
        order = [(spec, index) for spec, index in plan.order if (spec, index) not in done and spec not in lost]
        seen = list(past)
        left = 0
        try:
            for position, (spec_hash, index) in enumerate(order):
                spec = plan.specs[spec_hash]
                if deadline is not None and time.monotonic() + (expected_s(spec, seen) or 0) > deadline:
                    left = len(order) - position
                    break
                job = Job(
                    campaign_id=campaign_id,
                    spec=spec,
                    launch_index=index,
                    order_index=plan.order.index((spec_hash, index)),
                    folder=str(folders[spec.workload.hash]),
                    spool=str(store.spool_folder),
                    limits=Limits.quick() if plan.request.quick else Limits(),
                    phase_limits_s=dict(phase_limits_s),
                    count_nodes=spec_hash not in counted,
                    simulation_seed=plan.request.seed if plan.request.simulate else None,
                    machine=host,
                    imported_ahead=ahead is not None,
                    imports_beside=_imports_ahead(plan, order[position + 1 :]),
                )
                observer.launching(spec, index, position, len(order))
                started, ahead = ahead, start_child(LAUNCH, *TORCH_IMPORTS) if job.imports_beside else None
                began = time.monotonic()
                if _launch(job, store, phase_limits_s, observer, started):
                    counted.add(spec_hash)
                seen.append(duration_row(spec, time.monotonic() - began))
                _ingest(store, observer)
        finally:
            if ahead:
                ahead.discard()
            _ingest(store, observer)
        if left:
            observer.stopped(left)
            return campaign_id
        try:
            store.finish_campaign(campaign_id)
        except StoreBusyError as error:
            observer.warning(f"The campaign is complete but not marked as finished; --resume does that. {error}")
        return campaign_id


def _ingest(store: Store, observer: Observer) -> None:
    for path, reason in store.ingest().set_aside:
        observer.warning(
            f"A launch's file could not be read ({reason}) and was set aside as {path}; its launch is not in the store."
        )


def _campaign(plan: Plan, store: Store, command: str, resume: bool, observer: Observer) -> tuple[str, set[tuple[str, int]]]:
    if resume:
        if campaign := store.resumable_campaign(plan.hash):
            return campaign.id, campaign.done
        observer.warning("The store has no unfinished campaign of just this request on what is here now: a new one begins.")
    described = {**plan.to_dict(), "probed": {name: asdict(answer) for name, answer in plan.probed.items()}}
    return store.begin_campaign(described, request_hash=plan.hash, command=command, seed=plan.request.seed), set()


def _imports_ahead(plan: Plan, rest: Sequence[tuple[str, int]]) -> bool:
    """Whether the first launch of the rest begins early. Only torch's imports are worth it: seconds, the others' a fraction of one."""
    return plan.request.overlap_imports and bool(rest) and plan.specs[rest[0][0]].target.engine == "torch"


def _launch(job: Job, store: Store, limits_s: Mapping[str, float], observer: Observer, started: Child | None = None) -> bool:
    """Run one launch, and see to it that a record of it is spooled. Whether it gave a result."""
    ended = run_child(LAUNCH, job.to_json(), limits_s, observer.phase, started)
    problem = ended.problem
    spooled = spool_path(store.spool_folder, job.campaign_id, job.spec.hash, job.launch_index).exists()
    if not problem and not spooled:
        problem = ("process_died", "the launch's process ended without a record")
    if problem and not spooled:  # the child did not live to spool its own record
        error_class, sentence = problem
        failure = replace(
            job.begin(),
            duration_s=ended.duration_s,
            error_class=error_class,
            error_message=sentence,
            error_phase=ended.phase,
            machine=job.machine or machine.fingerprint(),
            environment=machine.environment(),
        )
        spool(failure, store.spool_folder)
    elif not problem and "error_class" in (last := ended.messages[-1]):
        problem = (last["error_class"], last["error_message"])
    observer.ended(job.spec, problem, ended.duration_s)
    return problem is None


def _spool_impossible(
    plan: Plan, lost: Mapping[str, LaunchError], store: Store, campaign_id: str, done: set[tuple[str, int]]
) -> None:
    """One row for each cell that cannot run: a reason in the store, not a gap."""

    def row(spec: Spec, status: str, error_class: str, reason: str, phase: str, **facts: str) -> None:
        if (spec.hash, 0) not in done:
            record = replace(
                LaunchRecord.begin(campaign_id, spec, 0, -1, plan.request.provenance),
                status=status,
                error_class=error_class,
                error_message=reason,
                error_phase=phase,
                facts=facts,
                machine=machine.fingerprint(),
                environment=machine.environment(),
            )
            spool(record, store.spool_folder)

    for cell in plan.impossible:
        row(cell.spec, "unsupported", "unsupported", cell.reason, "plan", remedy=cell.remedy)
    for key, error in lost.items():
        row(plan.specs[key], "failed", error.error_class, str(error), "prepare")
    store.ingest()
