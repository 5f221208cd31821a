"""The benchmark of distributed training runs as a person calls it, and its rows say what was measured and what was reckoned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "distributed_training.py"


def test_two_gloo_processes(tmp_path):
    """bert's printed scripts train alone, copied and sharded; FSDP holds less than DDP, and predictions stand beside measurements."""
    output = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "--backend", "gloo", "--processes", "2", "--size", "tiny", "--models", "bert"]
    done = subprocess.run(
        [*command, "--precisions", "float32", "--rounds", "1", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(output.read_text())
    rows = {row["strategy"]: row for row in value["rows"]}
    assert set(rows) == {"alone", "ddp", "fsdp"}
    assert rows["fsdp"]["measured_peak_bytes"] < rows["ddp"]["measured_peak_bytes"]
    assert rows["alone"]["predicted_step_ms"] is None  # it is what the others are predicted from
    assert rows["ddp"]["predicted_step_ms"]["value"] > rows["alone"]["measured_step_ms"]
    assert value["collectives"]["source"] == "measured" and value["collectives"]["processes"] == 2
    assert all(row["processes"] == 2 and len(row["measured_step_ms_of_rounds"]) == 1 for row in value["rows"])


def test_what_it_does_not_take():
    """One process and a model that it has no work for are refused before anything starts."""
    for arguments, said in ((("--processes", "1"), "2 processes or more"), (("--models", "bret"), "not bret")):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--backend", "gloo", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ,
        )
        assert done.returncode == 2 and said in done.stderr
