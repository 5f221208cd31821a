"""Making the models of a plan ready, each in a child process (``python -m ipfs_accelerate_py.campaign.preparation``): exporting
needs torch and much memory, and neither belongs in the process that watches launches."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..errors import LaunchError, UnavailableError, UserError
from ..models.registry import ModelReference
from ..spec import Workload
from .child import run_child

LIMIT_S = 3600.0


def prepare_in_child(work: Workload, reference: ModelReference, cache: Path, on_phase: Callable[[str], None]) -> Path:
    """The prepared folder of the workload.

    Raises UserError or UnavailableError as ``prepare`` did, and LaunchError where memory ran out or the export failed.
    """
    path = str(reference.path) if reference.path else None
    job = {"workload": asdict(work), "reference": {**asdict(reference), "path": path}, "cache": str(cache)}
    ended = run_child(__name__, json.dumps(job), {"default": LIMIT_S}, on_phase)
    answer = next((message for message in ended.messages if "folder" in message or "error" in message), None)
    if answer and "folder" in answer:
        return Path(answer["folder"])
    if answer and answer["kind"] == "user":
        raise UserError(answer["error"])
    if answer and answer["kind"] == "unavailable":
        raise UnavailableError(answer["error"])
    kind, sentence = (
        ("out_of_memory", answer["error"]) if answer else ended.problem or ("process_died", "it ended without a result")
    )
    raise LaunchError(
        "out_of_memory" if kind == "out_of_memory" else "load_failed", f"The model could not be prepared: {sentence}"
    )


def main() -> None:
    from ..measure.launch import die_with_parent

    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    from ..models.prepare import prepare
    from ..platforms.graph_session import error_class

    answers.write(json.dumps({"phase": "prepare"}) + "\n")
    try:
        path = job["reference"].pop("path")
        reference = ModelReference(**job["reference"], path=Path(path) if path else None)
        folder = prepare(Workload(**job["workload"]), reference, Path(job["cache"]))
        answer = {"folder": str(folder)}
    except UserError as error:
        answer = {"error": str(error), "kind": "user"}
    except UnavailableError as error:
        answer = {"error": str(error), "kind": "unavailable"}
    except (MemoryError, RuntimeError) as error:
        if error_class(error, "load_failed") != "out_of_memory":
            raise
        answer = {"error": str(error), "kind": "memory"}
    answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
