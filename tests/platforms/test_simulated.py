"""Simulation: real outputs, made-up times, and the mark on every row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipfs_accelerate_py.campaign.plan import Request, make_plan, probe_target
from ipfs_accelerate_py.measure.launch import Job, perform
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.measure.stopping import Limits
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.platforms.simulated import MEDIAN_MS, Simulated
from ipfs_accelerate_py.spec import PLATFORMS, Spec, Target, Workload
from ipfs_accelerate_py.store import queries


def job(work: Workload, folder: Path, platform: str, index: int = 0, seed: int = 0) -> Job:
    return Job(
        campaign_id="campaign",
        spec=Spec(workload=work, target=Target(platform=platform, engine="any")),
        launch_index=index,
        order_index=index,
        folder=str(folder),
        spool=str(folder),
        limits=Limits.quick(),
        phase_limits_s={},
        simulation_seed=seed,
    )


@pytest.fixture(scope="module")
def record(prepared: Callable[..., Path], workload_of: Callable[..., Workload]) -> LaunchRecord:
    """A simulated launch of a platform that this machine may well not have."""
    return perform(job(workload_of("bert"), prepared("bert"), "mps"), lambda phase: None)


def test_outputs_are_computed_and_times_are_marked(record: LaunchRecord) -> None:
    """The output check really compares outputs; the row says that it is simulated, and how its times were made."""
    assert (record.status, record.provenance) == ("ok", "simulated")
    assert record.accuracy and record.accuracy.passed and record.accuracy.relative_error > 0
    assert "Drawn, not measured" in record.facts["simulated"] and record.facts["outputs_by"].startswith("cpu")
    assert record.host_peak_bytes is None and record.coverage is None and record.software_adapter is None
    assert np.median(record.samples_ns) == pytest.approx(1e6 * MEDIAN_MS, rel=0.2)


def test_a_seed_gives_the_same_times_and_launches_differ(
    record: LaunchRecord, prepared: Callable[..., Path], workload_of: Callable[..., Workload]
) -> None:
    """Times follow from the seed, the spec and the launch's number, and from nothing that this machine does."""
    work, folder = workload_of("bert"), prepared("bert")
    again = perform(job(work, folder, "mps"), lambda phase: None)
    assert again.samples_ns == record.samples_ns and again.warm_up_ns == record.warm_up_ns
    for other in (job(work, folder, "mps", index=1), job(work, folder, "mps", seed=1), job(work, folder, "cuda")):
        assert perform(other, lambda phase: None).samples_ns[0] != record.samples_ns[0]


def test_a_wrong_output_is_found_in_a_simulation_too(
    prepared: Callable[..., Path], workload_of: Callable[..., Workload], tmp_path: Path
) -> None:
    """The check is no formality: against another reference it fails."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in prepared("bert").iterdir():
        (folder / file.name).symlink_to(file)
    reference = load_tensors(folder / "reference.npz")
    (folder / "reference.npz").unlink()
    np.savez(folder / "reference.npz", **{name: -array for name, array in reference.items()})
    record = perform(job(workload_of("bert"), folder, "webgpu"), lambda phase: None)
    assert record.provenance == "simulated" and record.accuracy and not record.accuracy.passed


def test_generated_tokens_have_times_within_their_iteration(
    prepared: Callable[..., Path], workload_of: Callable[..., Workload]
) -> None:
    """One time a token, in order, the last at the end of the iteration."""
    work, folder = workload_of("llama"), prepared("llama")
    options = OpenOptions(
        folder=folder, engine="onnxruntime-web", browser="firefox", inputs=load_tensors(folder / "inputs.npz")
    )
    session = Simulated("webgpu", ("onnxruntime-web",), "seed").open(work, "default", options)
    phases = session.timed_phases()
    sample, outputs = session.timed_first()
    session.close()
    assert set(phases) == {"fetch", "load", "compile"} and min(phases.values()) > 0
    assert outputs["token_ids"].shape == (work.batch_size, work.new_tokens)
    assert len(sample.token_ns) == work.new_tokens and sorted(set(sample.token_ns)) == list(sample.token_ns)
    assert sample.token_ns[-1] == sample.total_ns


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_other_precisions_are_computed_where_the_cpu_can(
    precision: str, prepared: Callable[..., Path], workload_of: Callable[..., Workload]
) -> None:
    """float16 by torch, int8 by onnxruntime, each by its own rule of the output check."""
    work = workload_of("bert", precision=precision)
    record = perform(job(work, prepared("bert", precision=precision), "webgpu"), lambda phase: None)
    assert record.status == "ok", record.error_message
    assert record.accuracy and record.accuracy.passed and precision in record.accuracy.rule


def test_a_plan_covers_whatever_was_named() -> None:
    """Every platform and browser, also those that no machine has at once; what a platform can never do stays impossible."""
    request = Request(models=("bert",), sizes=("tiny",), weights="synthetic", precisions=("float32", "int8"), simulate=True)
    plan = make_plan(request, {name: probe_target(name, simulate=True) for name in PLATFORMS})
    targets = {(spec.target.platform, spec.target.browser) for spec in plan.specs.values()}
    assert {platform for platform, _ in targets} == set(PLATFORMS)
    assert {("webgpu", "safari"), ("webnn", "edge"), ("wasm", "firefox")} <= targets
    assert {(cell.spec.target.platform, cell.spec.workload.precision) for cell in plan.impossible} >= {("cuda", "int8")}


def test_a_request_to_simulate_is_another_request() -> None:
    """Its identity differs, so that neither campaign is resumed as the other."""
    request = Request(models=("bert",), sizes=("tiny",), weights="synthetic", platforms=("cpu",))
    probed = {"cpu": probe_target("cpu", simulate=True)}
    assert make_plan(request, probed).hash != make_plan(replace(request, simulate=True), probed).hash


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a measuring campaign that was begun and not finished, and then the same request simulated with --resume."""
    folder = tmp_path_factory.mktemp("simulated")
    store = folder / "s.duckdb"
    cells = ["--models", "bert", "--size", "tiny", "--platforms", "cpu,webgpu", "--engines", "onnxruntime,onnxruntime-web"]
    cells += ["--browsers", "safari", "--launches", "2", "--quick", "--store", str(store)]
    environment = {**os.environ, "IPFS_ACCELERATE_CACHE": str(folder / "cache")}
    for flags in (["--simulate", "--resume", "--json"], ["--resume", "--json"]):
        name = flags[0].strip("-")
        report = ["--report", str(folder / f"{name}.html")]
        command = [sys.executable, "-m", "ipfs_accelerate_py.cli", "bench", *cells, *flags, *report]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.json").write_text(done.stdout)
    return store


def test_a_simulated_campaign_runs_and_ranks_nothing(campaigns: Path) -> None:
    """With neither Safari nor a GPU both cells have launches; every row is marked, none is ranked, and the findings say so."""
    answer = json.loads((campaigns.parent / "simulate.json").read_text())
    assert {cell["label"]: cell["launches_ok"] for cell in answer["cells"]} == {"cpu · onnxruntime": 2, "webgpu · safari": 2}
    assert all(cell["provenance"] == "simulated" and not cell["ranked"] and cell["accuracy_passed"] for cell in answer["cells"])
    assert "no best platform to name" in answer["findings"][0] and "2 are simulated" in answer["findings"][2]
    assert "Simulated: nothing here was measured" in Path(answer["report"]).read_text()


def test_neither_campaign_goes_on_with_the_other(campaigns: Path) -> None:
    """The same request, measuring, has launches of its own; what it cannot run is measured to be so."""
    rows = {row["campaign_id"]: row for row in queries.campaigns(campaigns)}
    assert sorted(row["provenance"] for row in rows.values()) == ["measured", "simulated"]
    for row in queries.launches(campaigns):
        assert row["provenance"] == rows[row["campaign_id"]]["provenance"]
    measured = queries.launches(campaigns, provenance="measured")
    assert sorted((row["platform"], row["status"]) for row in measured) == [
        ("cpu", "ok"),
        ("cpu", "ok"),
        ("webgpu", "unsupported"),
    ]
