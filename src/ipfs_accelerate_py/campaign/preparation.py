"""Making the workloads of one model ready, in a child process (``python -m ipfs_accelerate_py.campaign.preparation``): exporting needs
torch and much memory, and neither belongs in the process that watches launches. The workloads share a child, so that the model's
weights are made or read once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import LaunchError, UnavailableError, UserError
from ..models.prepare import prepared_path
from ..models.registry import ModelReference
from ..spec import Workload
from .child import Child, run_child

LIMIT_S = 3600.0


@dataclass(frozen=True)
class Task:
    """A workload to prepare; ``exported`` False where torch alone will run it. ``reference_device`` is torch's name of the device that
    computes the reference."""

    workload: Workload
    exported: bool = True
    reference_device: str = "cpu"

    def made(self, reference: ModelReference, cache: Path) -> Path | None:
        """The prepared folder where there is one."""
        place = prepared_path(self.workload, reference, cache, exported=self.exported, device=self.reference_device)
        return place if place.is_dir() else None


def prepare_in_child(
    work: Workload, reference: ModelReference, cache: Path, on_phase: Callable[[str], None], exported: bool = True
) -> Path:
    """The prepared folder of one workload; what it raises is as in ``prepare_all``, and LaunchError where it could not be made."""
    (made,) = prepare_all([Task(work, exported)], reference, cache, on_phase)
    if isinstance(made, LaunchError):
        raise made
    return made


def prepare_all(
    tasks: Sequence[Task],
    reference: ModelReference,
    cache: Path,
    on_phase: Callable[[str], None],
    threads: int | None = None,
    start: Callable[[str], Child] | None = None,
) -> list[Path | LaunchError]:
    """The prepared folder of each task of one model, or why it was not made: memory ran out or the export failed.

    A task that takes its child down leaves the others to another child. The child computes with ``threads`` (None: torch's default), and
    ``start`` starts it, by the name of its module. Raises UserError or UnavailableError as ``prepare`` did.
    """
    made: list[Path | LaunchError] = []
    while len(made) < len(tasks):
        job = {
            "tasks": [asdict(task) for task in tasks[len(made) :]],
            "reference": {**asdict(reference), "path": str(reference.path) if reference.path else None},
            "cache": str(cache),
            "threads": threads,
        }
        started = start(__name__) if start else None
        ended = run_child(__name__, json.dumps(job), {"default": LIMIT_S}, on_phase, started)
        made += [_outcome(message) for message in ended.messages if "phase" not in message]
        if len(made) < len(tasks):
            made.append(_failure(*(ended.problem or ("process_died", "it ended without a result"))))
    return made


def _outcome(answer: dict[str, Any]) -> Path | LaunchError:
    if "folder" in answer:
        return Path(answer["folder"])
    if answer["kind"] == "user":
        raise UserError(answer["error"])
    if answer["kind"] == "unavailable":
        raise UnavailableError(answer["error"])
    return _failure("out_of_memory", answer["error"])


def _failure(error_class: str, sentence: str) -> LaunchError:
    kept = "out_of_memory" if error_class == "out_of_memory" else "load_failed"
    return LaunchError(kept, f"The model could not be prepared: {sentence}")


def main() -> None:
    from ..measure.launch import die_with_parent

    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    if job["threads"]:
        # The pools of torch's libraries take their size when they are loaded.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(job["threads"])
    path = job["reference"].pop("path")
    reference = ModelReference(**job["reference"], path=Path(path) if path else None)
    for raw in job["tasks"]:
        task = Task(**{**raw, "workload": Workload(**raw["workload"])})

        def tell(step: str, label: str = task.workload.label) -> None:
            answers.write(json.dumps({"phase": f"{label}: {step}"}) + "\n")

        tell("weights and inputs")
        answers.write(json.dumps(_prepared(task, reference, Path(job["cache"]), tell)) + "\n")


def _prepared(task: Task, reference: ModelReference, cache: Path, tell: Callable[[str], None]) -> dict[str, str]:
    """What this child answers for a task. Only what would take others with it ends it."""
    from ..models.prepare import prepare
    from ..platforms.graph_session import error_class

    try:
        folder = prepare(task.workload, reference, cache, exported=task.exported, tell=tell, device=task.reference_device)
        return {"folder": str(folder)}
    except UserError as error:
        return {"error": str(error), "kind": "user"}
    except UnavailableError as error:
        return {"error": str(error), "kind": "unavailable"}
    except (MemoryError, RuntimeError) as error:
        if error_class(error, "load_failed") != "out_of_memory":
            raise
        return {"error": str(error), "kind": "memory"}


if __name__ == "__main__":
    main()
