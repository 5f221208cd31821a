"""Preparing all models of a plan: several at a time, within the memory, only what is needed, and together stopped."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ipfs_accelerate_py.campaign import prepare_plan as preparing
from ipfs_accelerate_py.campaign.memory_share import MemoryShare
from ipfs_accelerate_py.campaign.needs import (
    LARGE_WEIGHTS_BYTES,
    device_bytes,
    least_bytes,
    memory_bytes,
    reference_device,
    weights_bytes,
)
from ipfs_accelerate_py.campaign.plan import Plan, Request, make_plan
from ipfs_accelerate_py.campaign.preparation import Task
from ipfs_accelerate_py.campaign.prepare_plan import default_jobs, prepare_plan, tasks_of
from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.models.prepare import prepared_path
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.platforms.base import Available, Device, Unavailable

H200 = Available((Device("default", "NVIDIA H200", {"memory_bytes": 150_000_000_000}),), ("torch",))
CPU = Available((Device("default", "a processor"),), ("torch", "onnxruntime"))
PATIENCE_S = 60


def plan_of(*models: str, engines: tuple[str, ...] = ("torch",), **more: object) -> Plan:
    request = Request(models=models, sizes=("tiny",), platforms=("cpu",), engines=engines, launches=1, **more)  # type: ignore[arg-type]
    return make_plan(request, {"cpu": CPU})


def test_as_many_models_at_a_time_as_there_are_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs meet each other; with one job no two ever do."""
    meeting, lock, now, most = threading.Barrier(2), threading.Lock(), [0], [0]

    def prepare_all(tasks, reference, cache, on_phase, threads, start):  # type: ignore[no-untyped-def]
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if together:
            meeting.wait(PATIENCE_S)  # raises BrokenBarrierError if the other never comes
        with lock:
            now[0] -= 1
        return [tmp_path / task.workload.hash for task in tasks]

    monkeypatch.setattr(preparing, "prepare_all", prepare_all)
    together = True
    prepared = prepare_plan(plan_of("bert", "vit"), tmp_path, jobs=2)
    assert len(prepared.folders) == 2 and most == [2]
    together, most[0] = False, 0
    prepare_plan(plan_of("bert", "vit", "llama"), tmp_path, jobs=1)
    assert most == [1]
    assert [default_jobs(cores) for cores in (1, 2, 3, 16)] == [1, 2, 2, 8]


def test_memory_is_shared_by_those_that_fit() -> None:
    """Two that need 60 of 100 bytes follow each other; one that needs more than all runs, alone."""
    share, running, seen = MemoryShare(100), [0], []
    lock = threading.Lock()

    def job(needs: int) -> None:
        with share.taken(needs):
            with lock:
                running[0] += min(needs, 100)
                seen.append(running[0])
            time.sleep(0.02)  # so that the others arrive meanwhile
            with lock:
                running[0] -= min(needs, 100)

    threads = [threading.Thread(target=job, args=(needs,)) for needs in (60, 60, 30, 500, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(seen) == 5 and max(seen) <= 100


def test_a_mistake_ends_the_other_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one model's child works, another's mistake is raised, and that child is dead by then and no other begins."""
    begun = threading.Event()
    children = []

    def prepare_all(tasks, reference, cache, on_phase, threads, start):  # type: ignore[no-untyped-def]
        if reference.model_class == "bert":
            begun.wait(PATIENCE_S)
            raise UserError("There is no such weight.")
        children.append(start("ipfs_accelerate_py.campaign.preparation"))  # waits for its job, which never comes
        begun.set()
        children[0].process.stdout.read()
        children.append(start("ipfs_accelerate_py.campaign.preparation"))
        return []

    monkeypatch.setattr(preparing, "prepare_all", prepare_all)
    with pytest.raises(UserError, match="no such weight"):
        prepare_plan(plan_of("bert", "vit"), tmp_path, jobs=2)
    assert len(children) == 1
    assert children[0].process.poll() is not None
    children[0].discard()


def test_only_what_the_targets_need_is_exported() -> None:
    """torch alone: no ONNX file; with onnxruntime, or simulated: one."""
    for plan, exported in (
        (plan_of("bert"), False),
        (plan_of("bert", engines=("torch", "onnxruntime")), True),
        (plan_of("bert", simulate=True), True),
    ):
        assert [task.exported for tasks in tasks_of(plan).values() for task in tasks] == [exported]


def test_what_torch_runs_is_prepared_alike_for_every_device(tmp_path: Path) -> None:
    """A folder that was made on a machine without a GPU is found on one that has it, at every precision of torch."""
    places = []
    for name, found in (("cpu", CPU), ("cuda", H200)):
        request = Request(
            models=("bert", "llama"), sizes=("tiny",), platforms=(name,), engines=("torch",), precisions=("float32", "float16")
        )
        tasks = tasks_of(make_plan(request, {name: found}))
        places.append(
            {
                prepared_path(t.workload, r, tmp_path, exported=t.exported, device=t.reference_device)
                for r in tasks
                for t in tasks[r]
            }
        )
    assert places[0] == places[1] and len(places[0]) == 4


def test_what_is_ready_needs_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second preparation of the same plan starts nothing, and finds the folders of the first; batches share a model's child."""
    plan = plan_of("vit", batch_sizes=(1, 2))
    first = prepare_plan(plan, tmp_path)
    assert first.found == 0 and len(first.folders) == 2

    def nothing(*_: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(preparing, "prepare_all", nothing)
    second = prepare_plan(plan, tmp_path)
    assert second.found == 2 and second.folders == first.folders


def test_weights_beyond_the_memory_are_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot hold the float32 weights is not driven out of memory: each workload is lost with the reason."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000, total=10_000))
    warnings: list[str] = []
    prepared = prepare_plan(plan_of("bert", batch_sizes=(1, 2)), tmp_path, warning=warnings.append)
    assert not prepared.folders and len(prepared.lost) == len(warnings) == 2
    error = next(iter(prepared.lost.values()))
    assert isinstance(error, LaunchError) and error.error_class == "out_of_memory"
    assert "its float32 weights are" in str(error)


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_the_weights_are_known_without_loading(name: str) -> None:
    """4 bytes for each parameter that transformers' model of the shape has, within 1 %, tied ones counted once."""
    import torch

    reference = resolve(name, "tiny", "synthetic")
    kind = model_classes()[name]
    with torch.device("meta"):
        model = kind.build(kind.config(kind.sizes["tiny"].config))
    assert weights_bytes(reference) == pytest.approx(4 * sum(each.numel() for each in model.parameters()), rel=0.01)


def test_memory_grows_with_what_is_done() -> None:
    """Export takes more than training, training more than inference; of an unknown shape nothing is claimed."""
    reference = resolve("vit", "tiny", "synthetic")
    plain, training = Task(workload(reference), False), Task(workload(reference, mode="training"), False)
    exported = Task(workload(reference), True)
    needs = [memory_bytes(reference, [task], 10**9) or 0 for task in (plain, training, exported)]
    assert 10**9 < needs[0] < needs[1] < needs[2]
    assert memory_bytes(reference, [plain, exported], 10**9) == needs[2]
    assert memory_bytes(reference, [plain], None) is None
    assert weights_bytes(resolve("llama", "7b", "synthetic")) == pytest.approx(4 * 6.74e9, rel=0.01)


def test_a_gpu_computes_the_reference_of_large_decoders_alone() -> None:
    """Seven billion parameters on an H200: yes; smaller ones, exported or training ones, and GPUs without room: the CPU."""
    large = workload(resolve("llama", "7b", "synthetic"))
    small = workload(resolve("llama", "tiny", "synthetic"))
    training = workload(resolve("llama", "7b", "synthetic"), mode="training")
    weights = weights_bytes(resolve("llama", "7b", "synthetic"))
    narrow = Available((Device("default", "a small GPU", {"memory_bytes": 24_000_000_000}),), ("torch",))
    assert weights is not None and weights > LARGE_WEIGHTS_BYTES
    assert reference_device(large, False, weights, {"cuda": H200}) == "cuda:0"
    assert reference_device(large, True, weights, {"cuda": H200}) == "cpu"
    assert reference_device(small, False, 10**6, {"cuda": H200}) == "cpu"
    assert reference_device(training, False, weights, {"cuda": H200}) == "cpu"
    assert reference_device(large, False, weights, {"cuda": narrow}) == "cpu"
    assert reference_device(large, False, weights, {"cuda": Unavailable("none")}) == "cpu"
    assert reference_device(large, False, None, {}) == "cpu"


def test_synthetic_weights_of_a_gpus_reference_take_no_host_memory() -> None:
    """They are made on the GPU; trained ones pass through the host."""
    made = resolve("llama", "7b", "synthetic")
    read = replace(made, weights="trained", origin="folder:0", path=Path("/somewhere"))
    tasks = [Task(workload(made), False, "cuda:0")]
    assert least_bytes(made, tasks, 28 * 10**9) == 0 and (memory_bytes(made, tasks, 28 * 10**9) or 0) < 2 * 10**9
    assert least_bytes(read, tasks, 28 * 10**9) == 28 * 10**9
    assert device_bytes(tasks, 28 * 10**9) > 28 * 10**9 and device_bytes([Task(workload(made))], 28 * 10**9) == 0
