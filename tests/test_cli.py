"""The command line as a person meets it: what it prints, and what a mistake gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "data" / "reference"


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "ipfs_accelerate_py.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the reference measurements."""
    path = tmp_path_factory.mktemp("cli") / "r.duckdb"
    for folder in sorted(REFERENCE.glob("*/")):
        done = run("import", str(folder), "--store", str(path))
        assert done.returncode == 0, done.stderr
    return str(path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bench", "--platforms", "webgu"], "Unknown platform 'webgu': did you mean webgpu"),
        (["bench", "--browsers", "firefx"], "Unknown browser 'firefx': did you mean firefox"),
        (["bench", "--precisions", "float61"], "Unknown precision 'float61': did you mean float16"),
        (["bench", "--platforms", "cpu", "--models", "brt"], "Unknown model 'brt': did you mean bert"),
        (["bench", "--platforms", "cpu", "--models", "./nowhere"], "There is no folder './nowhere'"),
        (["bench", "--platforms", "cpu", "--models", "bert", "--size", "smal"], "did you mean small"),
        (["bench", "--batch-sizes", "two"], "--batch-sizes takes whole numbers"),
        (["bench", "--phase-limit-s", "-1"], "--phase-limit-s -1 makes no sense"),
        (["bench", "--threads", "0"], "--threads 0 makes no sense"),
        (["bench", "--store", "a.html"], "would overwrite the store"),
        (["detect", "--platforms", "cuda,mpz"], "Unknown platform 'mpz'"),
        (["report", "--store", "none.duckdb"], "none.duckdb"),
        (["query", "SELECT 1", "--store", "none.duckdb"], "none.duckdb"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(words: list[str], sentence: str, tmp_path: Path) -> None:
    """No traceback, nothing on standard output, nothing made on the disk."""
    done = run(*words, cwd=tmp_path)
    told = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert sentence in told
    assert "Traceback" not in told
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_compare_says_who_is_faster_by_how_much(store: str) -> None:
    """The ratio of medians lies in its interval, and the other way round is the other verdict."""
    pair = ["bert cuda float32", "bert firefox webgpu float32 69b9"]
    answers = [run("compare", *order, "--store", store, "--json") for order in (pair, pair[::-1])]
    first, second = (json.loads(answer.stdout) for answer in answers)
    assert (first["verdict"], second["verdict"]) == ("faster", "slower")
    assert first["interval"]["low"] <= first["ratio"] <= first["interval"]["high"] < 1
    assert first["ratio"] == pytest.approx(1 / second["ratio"])
    assert re.search(
        r"A is faster: it takes 0\.\d+ times as long as B, 95 % interval", run("compare", *pair, "--store", store).stdout
    )


def test_compare_names_the_cells_that_a_word_fits(store: str) -> None:
    """An ambiguous name is refused with the names, an unknown one with the nearest."""
    done = run("compare", "bert cuda", "vit cuda float32", "--store", store)
    assert done.returncode == 2 and "fits 2 cells" in done.stderr and "float16" in done.stderr
    assert run("compare", "gpt cuda", "vit cuda float32", "--store", store).returncode == 2


def test_query_prints_rows_and_cannot_write(store: str) -> None:
    """JSON rows for a program; a statement that writes is refused."""
    rows = json.loads(run("query", "SELECT count(*) AS n FROM launch", "--store", store, "--json").stdout)
    assert rows[0]["n"] > 200
    done = run("query", "DELETE FROM launch", "--store", store)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_reference_measurements_are_whole(store: str) -> None:
    """Every cell of the float32 campaigns that ran passed its output check, and every launch names its machine and its samples."""
    sql = (
        "SELECT count(*) FILTER (status = 'ok' AND NOT accuracy_passed) AS wrong, "
        "count(*) FILTER (status = 'ok' AND n_samples = 0) AS empty, "
        "count(DISTINCT machine_hash) FILTER (status = 'ok') AS machines FROM launch_summary"
    )
    assert json.loads(run("query", sql, "--store", store, "--json").stdout) == [{"wrong": 0, "empty": 0, "machines": 2}]


def test_plan_runs_nothing(tmp_path: Path) -> None:
    """The plan says what would run and leaves nothing behind."""
    done = run("bench", "--plan", "--json", "--models", "bert", "--size", "tiny", "--platforms", "cpu", cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert plan["launches"] == 5 * len(plan["specs"]) > 0
    assert plan["launches_without_estimate"] == plan["launches"]
    assert not list(tmp_path.iterdir())


def test_detect_reads_this_machine() -> None:
    """The processor that the system names, with its cores; and why there is no Metal on Linux."""
    found = json.loads(run("detect", "--platforms", "cpu,mps", "--json").stdout)
    assert found["cpu"]["available"] and found["cpu"]["devices"][0]["facts"]["logical_cores"] >= 1
    if sys.platform == "linux":
        assert not found["mps"]["available"] and "macOS" in found["mps"]["reason"]


def test_help_of_bench_teaches() -> None:
    """Examples and every option of the sweep."""
    told = run("bench", "--help").stdout
    for word in ("Examples", "--resume", "--plan", "--batch-sizes", "--software-launches"):
        assert word in told
