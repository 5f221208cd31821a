"""Preparing all models of a plan, several at a time in processes of their own, before anything is timed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from ..errors import LaunchError
from ..models.registry import ModelReference
from ..platforms.base import Available
from ..platforms.processor import default_threads
from ..spec import Workload
from .child import Child, kill_tree, start_child
from .memory_share import MemoryShare
from .needs import device_bytes, least_bytes, memory_bytes, reference_device, weights_bytes
from .plan import Plan
from .preparation import Task, prepare_all

USABLE = 0.85  # of the memory that is free when preparation begins: others need some too


@dataclass(frozen=True)
class Preparation:
    """``folders`` by workload hash; ``lost`` says by workload hash why a model could not be made; ``found`` counts the workloads whose
    folder was there already."""

    folders: Mapping[str, Path]
    lost: Mapping[str, LaunchError]
    found: int


def prepare_plan(
    plan: Plan,
    cache: Path,
    *,
    jobs: int | None = None,
    preparing: Callable[[str], None] = lambda step: None,
    warning: Callable[[str], None] = lambda sentence: None,
) -> Preparation:
    """Make ready what the plan's targets need and the cache does not have, at most ``jobs`` models at a time, as many as fit into memory.

    Whatever is raised (a mistake of the user's, an interrupt) ends all children first.
    """
    models = tasks_of(plan)
    folders: dict[str, Path] = {}
    todo: dict[ModelReference, list[Task]] = {}
    for reference, tasks in models.items():
        for task in tasks:
            if made := task.made(reference, cache):
                folders[task.workload.hash] = made
            else:
                todo.setdefault(reference, []).append(task)
    found = len(folders)
    lost: dict[str, LaunchError] = {}
    for task, made_or_lost in _made(todo, plan, cache, jobs, preparing):
        if isinstance(made_or_lost, LaunchError):
            warning(f"{task.workload.label}: {made_or_lost}")
            lost[task.workload.hash] = made_or_lost
        else:
            folders[task.workload.hash] = made_or_lost
    return Preparation(folders, lost, found)


def tasks_of(plan: Plan) -> dict[ModelReference, list[Task]]:
    """What the targets need of each model: no ONNX files where torch alone runs a workload."""
    engines: dict[Workload, set[str]] = {}
    for spec in plan.specs.values():
        engines.setdefault(spec.workload, set()).add(spec.target.engine)
    weights = {reference: weights_bytes(reference) for reference in set(plan.references.values())}
    models: dict[ModelReference, list[Task]] = {}
    for work, found in engines.items():
        reference = plan.references[work.hash]
        # A simulation takes its outputs from whichever engine of the CPU it finds.
        exported = plan.request.simulate or found != {"torch"}
        device = "cpu" if plan.request.simulate else reference_device(work, exported, weights[reference], plan.probed)
        models.setdefault(reference, []).append(Task(work, exported, device))
    return models


def default_jobs(cores: int) -> int:
    """Two cores a job, but two jobs where there are fewer than four: much of the work is Python's, which keeps one core busy
    (``benchmarks/preparation.py``)."""
    return min(cores, max(2, cores // 2))


def _made(
    todo: Mapping[ModelReference, list[Task]], plan: Plan, cache: Path, jobs: int | None, preparing: Callable[[str], None]
) -> list[tuple[Task, Path | LaunchError]]:
    """Each task with what became of it, in the order of ``todo``."""
    if not todo:
        return []
    import psutil

    from ..recommend.places import host_memory_bytes

    cores = default_threads()
    jobs = min(jobs or default_jobs(cores), len(todo))
    host = MemoryShare(round(USABLE * min(psutil.virtual_memory().available, host_memory_bytes())))
    gpu = plan.probed.get("cuda")
    device = MemoryShare(round(USABLE * gpu.devices[0].facts.get("memory_bytes", 0)) if isinstance(gpu, Available) else 0)
    weights = {reference: weights_bytes(reference) for reference in todo}
    children = _Children()

    def prepare(reference: ModelReference) -> list[Path | LaunchError]:
        tasks, size = todo[reference], weights[reference]
        on_host, least = memory_bytes(reference, tasks, size), least_bytes(reference, tasks, size)
        if least > host.total:
            reason = f"its float32 weights are {least / 1e9:.0f} GB, and {host.total / 1e9:.0f} GB of memory can be used."
            return [LaunchError("out_of_memory", f"The model could not be prepared: {reason}")] * len(tasks)
        with host.taken(host.total if on_host is None else on_host), device.taken(device_bytes(tasks, size)):
            preparing(f"{reference.model_class} {reference.size}")
            return prepare_all(tasks, reference, cache, preparing, max(1, cores // jobs), children.start)

    # The largest first: what is left when most are done is then short, and nothing small keeps the memory from them.
    order = sorted(todo, key=lambda reference: weights[reference] or 0, reverse=True)
    with ThreadPoolExecutor(jobs) as pool:
        futures: dict[ModelReference, Future[list[Path | LaunchError]]] = {}
        try:
            futures = {reference: pool.submit(prepare, reference) for reference in order}
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in futures.values():
                if future.done():
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
        return [pair for reference in todo for pair in zip(todo[reference], futures[reference].result(), strict=True)]


class _StoppedError(Exception):
    """Raised where another child would start after ``stop``."""


class _Children:
    """The children of several threads, which end together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[Child] = []
        self._stopped = False

    def start(self, module: str) -> Child:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            child = start_child(module)
            self._started.append(child)
            return child

    def stop(self) -> None:
        """Kill all: the threads that read from them go on at once. None starts any more."""
        with self._lock:
            self._stopped = True
            for child in self._started:
                if child.process.poll() is None:
                    kill_tree(child.process)
