"""Memory of real DDP and FSDP steps over gloo, by torch's own allocator, against the formula."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "distributed_training.py"


def test_peaks_of_two_processes(tmp_path):
    """llama small at float32, alone, copied and sharded over two processes: within 5 %, sharded at most 20 % too high."""
    output = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "--backend", "gloo", "--processes", "2", "--size", "small", "--models", "llama"]
    done = subprocess.run(
        [*command, "--precisions", "float32", "--rounds", "1", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    errors = {row["strategy"]: row["predicted_peak_bytes"] / row["measured_peak_bytes"] - 1 for row in rows}
    assert set(errors) == {"alone", "ddp", "fsdp"}
    assert abs(errors["alone"]) < 0.05 and abs(errors["ddp"]) < 0.05, errors
    # Whether a gradient is still being sent when the next comes depends on the processes' timing, and the formula counts that it is.
    assert -0.05 < errors["fsdp"] < 0.20, errors
