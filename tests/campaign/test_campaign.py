"""Whole campaigns on tiny models, and what becomes of them when they are killed, interrupted, or meet each other."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ipfs_accelerate_py.store import queries

PROGRAM = [sys.executable, "-m", "ipfs_accelerate_py.cli"]
CELLS = ["--models", "bert", "--size", "tiny", "--platforms", "cpu,openvino", "--engines", "onnxruntime,openvino", "--quick"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of prepared models for all campaigns here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``bench`` on a store of this test, in a session of its own."""

    def start(*flags: str, cells: list[str] = CELLS) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, "bench", *cells, "--store", str(tmp_path / "a.duckdb"), *flags],
            env={**os.environ, "IPFS_ACCELERATE_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Standard output and error of a campaign that ends well."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def test_a_campaign_measures_stores_and_reports(bench, tmp_path: Path) -> None:
    """Each cell has its launches, checked and with samples; the report is a file; the answer is JSON."""
    out, err = finish(bench("--launches", "2", "--json"))
    answer = json.loads(out)
    assert {cell["label"]: cell["launches_ok"] for cell in answer["cells"]} == {"cpu · onnxruntime": 2, "openvino": 2}
    assert all(cell["ranked"] and cell["median_ms"] > 0 and cell["provenance"] == "measured" for cell in answer["cells"])
    assert Path(answer["report"]).read_text().lower().startswith("<!doctype html>")
    assert answer["report"] in err.replace("\n", "")
    records = queries.records(tmp_path / "a.duckdb")
    assert len({record.facts["process_id"] for record in records}) == 4  # a launch is a process of its own
    assert {record.order_index for record in records} == {0, 1, 2, 3}


def wait_for_launches(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the store holds so many launches of a campaign that still runs."""
    deadline = time.monotonic() + 120
    while not store.exists() or len(queries.launches(store)) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def test_kill_nine_at_any_moment_then_resume_gives_the_same_launches(bench, tmp_path: Path) -> None:
    """Kill -9 of a campaign in preparation, and in the middle of launches: none is lost twice, none is doubled."""
    moments = random.Random(0)
    store = tmp_path / "a.duckdb"
    for count in (0, 1, 3):
        process = bench("--launches", "3", "--resume")
        wait_for_launches(store, count, process)
        time.sleep(moments.uniform(0, 0.7))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert all(row["status"] == "unfinished" for row in queries.campaigns(store))
    finish(bench("--launches", "3", "--resume"))
    rows = queries.launches(store)
    assert sorted((row["label"], row["launch_index"]) for row in rows) == [
        (label, index) for label in ("cpu · onnxruntime", "openvino") for index in range(3)
    ]
    assert len({row["campaign_id"] for row in rows}) == 1
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert not list((tmp_path / "a.duckdb.spool").glob("*"))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(bench, tmp_path: Path) -> None:
    """An interrupt ends with status 130, a report, the launches so far, and no child left."""
    process = bench("--launches", "50")
    wait_for_launches(tmp_path / "a.duckdb", 1, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err and "a.html" in err.replace("\n", "")
    rows = queries.launches(tmp_path / "a.duckdb")
    assert 1 <= len(rows) < 100 and {row["status"] for row in rows} == {"ok"}


def test_training_and_imports_ahead(bench, tmp_path: Path) -> None:
    """Torch alone needs no ONNX file; training is a cell of its own; launches that imported ahead say so and have no start."""
    cells = ["--models", "vit", "--size", "tiny", "--platforms", "cpu", "--engines", "torch", "--quick"]
    _, err = finish(bench("--launches", "1", "--modes", "inference,training", "--overlap-imports", cells=cells))
    assert "training" in err
    first, second = sorted(queries.records(tmp_path / "a.duckdb"), key=lambda record: record.order_index)
    assert {record.spec.workload.mode for record in (first, second)} == {"inference", "training"}
    assert first.accuracy.passed and second.accuracy.passed
    assert "start" in first.phases_ns and "imported_ahead" not in first.facts
    assert "start" not in second.phases_ns and second.facts["imported_ahead"]
    assert (
        first.facts["imports_beside"] and "imports_beside" not in second.facts
    )  # the first was measured beside the other's imports
    assert first.machine == second.machine


def test_two_campaigns_on_one_store(bench, tmp_path: Path) -> None:
    """The second is refused with the first one's process id, and the first goes on unharmed."""
    first = bench("--launches", "4")
    wait_for_launches(tmp_path / "a.duckdb", 1, first)
    second = bench("--launches", "1")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"already running on the store {tmp_path / 'a.duckdb'} (process {first.pid})" in " ".join(err.split())
    finish(first)
    assert len(queries.launches(tmp_path / "a.duckdb")) == 8


def test_a_phase_over_its_limit_is_a_stored_failure(bench, tmp_path: Path) -> None:
    """A launch that hangs (a limit below what starting takes) is killed, stored with its class and phase, and the rest goes on."""
    finish(bench("--launches", "1", "--phase-limit-s", "0.05"))
    rows = queries.launches(tmp_path / "a.duckdb")
    assert {(row["status"], row["error_class"], row["error_phase"]) for row in rows} == {("failed", "timeout", "start")}
    assert len(rows) == 2


def browser_of_a_launch(campaign: subprocess.Popen[str]) -> psutil.Process | None:
    """The browser that a launch of the campaign runs just now, not the one that answered the probe."""
    for child in psutil.Process(campaign.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ipfs_accelerate_py.measure.launch" in child.cmdline():
                return next((process for process in child.children(recursive=True) if "firefox" in process.name()), None)
    return None


def test_a_browser_that_is_killed_fails_its_launch_and_no_other(bench, tmp_path: Path) -> None:
    """Kill -9 of the browser in a launch is a stored failure with its class; the next launch is measured."""
    cells = ["--models", "bert", "--size", "tiny", "--platforms", "wasm", "--browsers", "firefox", "--quick"]
    process = bench("--launches", "2", cells=cells)
    deadline = time.monotonic() + 120
    while (browser := browser_of_a_launch(process)) is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    browser.kill()
    finish(process)
    rows = queries.launches(tmp_path / "a.duckdb")
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert rows[0]["error_class"] in ("browser_start", "browser_crashed")
