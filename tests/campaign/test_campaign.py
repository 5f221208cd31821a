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


def counts(store: Path) -> dict[str, int]:
    """Launches by cell."""
    rows = queries.launches(store)
    return {label: sum(row["label"] == label for row in rows) for label in ("cpu · onnxruntime", "openvino")}


def test_when_the_time_is_over_the_launches_stop_evenly(bench, tmp_path: Path) -> None:
    """Status 0, a report of what is done, cells that differ by one launch at most, and --resume does the rest in the same campaign."""
    store = tmp_path / "a.duckdb"
    finish(bench("--prepare-only"))
    _, err = finish(bench("--launches", "40", "--minutes", "0.25"))
    words = " ".join(err.split())
    assert "The 0.25 minutes are over" in words and "--resume goes on" in words
    done = counts(store)
    assert 1 <= sum(done.values()) < 80 and max(done.values()) - min(done.values()) <= 1
    assert (tmp_path / "a.html").exists()
    assert [row["status"] for row in queries.campaigns(store)] == ["unfinished"]
    finish(bench("--launches", "40", "--minutes", "0.1", "--resume"))
    more = counts(store)
    assert sum(more.values()) > sum(done.values()) and max(more.values()) - min(more.values()) <= 1
    assert len(queries.campaigns(store)) == 1
    assert len({(row["label"], row["launch_index"]) for row in queries.launches(store)}) == sum(more.values())


def test_no_launch_begins_that_would_end_too_late(tmp_path: Path, cache: Path) -> None:
    """By what is known of such launches; without a limit they all run."""
    from ipfs_accelerate_py.campaign.estimate import duration_row, expected_s
    from ipfs_accelerate_py.campaign.plan import Request, make_plan, probe_target
    from ipfs_accelerate_py.campaign.run import Observer, run_campaign
    from ipfs_accelerate_py.store.writer import Store

    request = Request(models=("bert",), sizes=("tiny",), platforms=("openvino",), launches=1, quick=True)
    plan = make_plan(request, {"openvino": probe_target("openvino", simulate=False)})
    (spec,) = plan.specs.values()
    past = [duration_row(spec, seconds) for seconds in (900.0, 1000.0, 1100.0)]
    assert expected_s(spec, past) == 1000 and expected_s(spec, ()) is None
    left: list[int] = []
    store = Store.create_or_open(tmp_path / "b.duckdb")
    run_campaign(plan, store, cache / "models", observer=Observer(stopped=left.append), command="", budget_s=600, past=past)
    assert left == [1] and not queries.launches(tmp_path / "b.duckdb")
    run_campaign(plan, store, cache / "models", observer=Observer(stopped=left.append), command="", resume=True, past=past)
    assert left == [1] and [row["status"] for row in queries.launches(tmp_path / "b.duckdb")] == ["ok"]


def test_preparing_alone_launches_nothing_and_is_found_again(bench, tmp_path: Path, cache: Path) -> None:
    """The folders are there, no store is; the second time there is nothing to do; --minutes makes no sense with it."""
    cells = [
        "--models",
        "vit",
        "--size",
        "tiny",
        "--platforms",
        "cpu",
        "--engines",
        "onnxruntime",
        "--batch-sizes",
        "1,3",
        "--quick",
    ]
    out, err = finish(bench("--prepare-only", "--jobs", "2", "--json", cells=cells))
    answer = json.loads(out)
    assert answer["made"] == 2 and answer["found"] == 0 and not answer["not_prepared"]
    assert all((Path(folder) / "model.onnx").is_file() for folder in answer["folders"].values())
    assert not (tmp_path / "a.duckdb").exists()
    out, err = finish(bench("--prepare-only", "--json", cells=cells))
    assert json.loads(out) == {**answer, "made": 0, "found": 2}
    assert "2 were ready" in " ".join(err.split())
    refused = bench("--prepare-only", "--minutes", "1", cells=cells)
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2 and "leave --minutes out" in " ".join(err.split())


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
