"""Preparing the workloads of one model together: what one of them breaks leaves the others whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipfs_accelerate_py.campaign import preparation
from ipfs_accelerate_py.campaign.child import Ended
from ipfs_accelerate_py.campaign.preparation import Task, prepare_all, prepare_in_child
from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.models.prepared import Manifest
from ipfs_accelerate_py.models.registry import resolve, workload

VIT = resolve("vit", "tiny", "synthetic")
TASKS = [Task(workload(VIT, batch_size=size), exported=False) for size in (1, 2, 3)]


def test_one_child_prepares_all_workloads_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders in the tasks' order, made by one process, which told what it was doing."""
    steps: list[str] = []
    starts: list[str] = []
    run_child = preparation.run_child
    monkeypatch.setattr(preparation, "run_child", lambda *arguments: starts.append("child") or run_child(*arguments))
    made = prepare_all(TASKS, VIT, tmp_path, steps.append)
    assert [Manifest.read(folder).dimensions["batch"] for folder in made if isinstance(folder, Path)] == [1, 2, 3]
    assert len(starts) == 1
    assert any(step.startswith("vit tiny float32: float32 reference of 1 of 1 items") for step in steps)


def _ended(*messages: dict[str, str], problem: tuple[str, str] | None = None) -> Ended:
    return Ended(list(messages), "prepare", problem, 1.0)


def test_a_workload_that_takes_its_child_down_is_lost_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills the child at the second of three: the third is made by another child."""
    answers = [
        _ended({"phase": "x"}, {"folder": "/a"}, {"phase": "y"}, problem=("out_of_memory", "the kernel ended it")),
        _ended({"phase": "z"}, {"folder": "/c"}),
    ]
    jobs: list[int] = []

    def run_child(module: str, job: str, *_: object) -> Ended:
        jobs.append(len(json.loads(job)["tasks"]))
        return answers.pop(0)

    monkeypatch.setattr(preparation, "run_child", run_child)
    first, second, third = prepare_all(TASKS, VIT, tmp_path, lambda step: None)
    assert (first, third) == (Path("/a"), Path("/c"))
    assert isinstance(second, LaunchError)
    assert second.error_class == "out_of_memory"
    assert jobs == [3, 1]


def test_a_mistake_of_the_user_is_raised(tmp_path: Path) -> None:
    """Weights that are not there are no failed launch but an error, with its sentence."""
    missing = resolve("vit", "tiny", "synthetic")
    broken = type(missing)("vit", "custom", "trained", "folder:0", tmp_path / "nothing")
    with pytest.raises(UserError, match="There is no folder"):
        prepare_in_child(workload(VIT), broken, tmp_path, lambda step: None, exported=False)
