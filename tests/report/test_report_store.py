"""Reading a report's data from a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import campaign_fixture as fixture
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.report.cells import cells
from ipfs_accelerate_py.report.data import ReportData, flatten, from_store
from ipfs_accelerate_py.report.html import render
from ipfs_accelerate_py.spec import Spec, Target
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store

CPU = fixture.spec_of("bert", "torch")
WEBNN = fixture.spec_of("bert", "webnn")
CUDA = Spec(workload=CPU.workload, target=Target(platform="cuda", engine="torch"))


def run_campaign(path: Path, *records: LaunchRecord, **plan: Any) -> str:
    """Store the records as a campaign that planned CPU and WebNN, and found no CUDA."""
    store = Store.create_or_open(path)
    made = {
        "request": {"launches": 2, "seed": 5},
        "specs": [CPU.to_dict(), WEBNN.to_dict()],
        "impossible": [{"spec": CUDA.to_dict(), "reason": "no CUDA", "remedy": "get a GPU"}],
        "launches": 4,
        **plan,
    }
    campaign_id = store.begin_campaign(made, request_hash="the request", command="bench", seed=5)
    for record in records:
        spool(replace(record, campaign_id=campaign_id, launch_id=f"{record.launch_id}-{campaign_id}"), store.spool_folder)
    store.finish_campaign(campaign_id)
    return campaign_id


def not_planned(spec: Spec, reason: str) -> LaunchRecord:
    """The row of a cell that cannot run."""
    changes = {
        "status": "unsupported",
        "error_class": "unsupported",
        "error_message": reason,
        "error_phase": "plan",
        "phases_ns": {},
    }
    return fixture.launch(spec, 0, None, **changes)


def test_launches_come_back_as_they_were_measured(tmp_path: Path):
    """Samples, phases, check, coverage and facts are those of the record."""
    record = fixture.launch(fixture.spec_of("llama", "webgpu-chromium"), 0, 9.0)
    run_campaign(tmp_path / "s.duckdb", record)
    [launch] = from_store(tmp_path / "s.duckdb").launches
    skip = {"launch_id", "campaign_id"}
    assert {k: v for k, v in launch.items() if k not in skip} == {k: v for k, v in flatten(record).items() if k not in skip}


def test_a_platform_that_was_not_there_is_a_line_not_a_cell(tmp_path: Path):
    """CUDA has no cells but a reason and a remedy; a planned platform's unsupported cell stays a cell."""
    records = [fixture.launch(CPU, 0, 9.0), not_planned(CUDA, "no CUDA"), not_planned(WEBNN, "no int8")]
    run_campaign(tmp_path / "s.duckdb", *records)
    data = from_store(tmp_path / "s.duckdb")
    assert [(cell.first["platform"], cell.kind) for cell in cells(data)] == [("cpu", "measured"), ("webnn", "unsupported")]
    assert [p for p in data.platforms if not p["available"]] == [
        {"name": "cuda", "available": False, "reason": "no CUDA", "remedy": "get a GPU"}
    ]
    text = render(data)
    assert "no int8" in text and "get a GPU" in text and "--seed 5" in text
    assert data.machine == fixture.MACHINE


def test_the_latest_campaign_a_named_one_or_all(tmp_path: Path):
    """By default the latest; by id another; ``all`` pools them."""
    path = tmp_path / "s.duckdb"
    first = run_campaign(path, fixture.launch(CPU, 0, 9.0))
    run_campaign(path, fixture.launch(CPU, 0, 8.0), fixture.launch(WEBNN, 0, 8.0))

    def size(data: ReportData) -> int:
        return len(data.launches)

    assert (size(from_store(path)), size(from_store(path, first)), size(from_store(path, "all"))) == (2, 1, 3)


def test_a_campaign_without_a_launch_gives_the_empty_report(tmp_path: Path):
    """As when it was interrupted at once."""
    run_campaign(tmp_path / "s.duckdb")
    assert "Nothing has been measured yet" in render(from_store(tmp_path / "s.duckdb"))


def test_no_campaign_is_said(tmp_path: Path):
    """A store without a campaign, and a campaign that is not there."""
    Store.create_or_open(tmp_path / "s.duckdb")
    with pytest.raises(UserError, match="no campaign yet"):
        from_store(tmp_path / "s.duckdb")
    run_campaign(tmp_path / "s.duckdb")
    with pytest.raises(UserError, match="Unknown campaign 'x'"):
        from_store(tmp_path / "s.duckdb", "x")
