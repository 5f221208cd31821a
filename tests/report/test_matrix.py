"""The compatibility matrix: its rule, what it reads, and how it is written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import campaign_fixture as fixture
import pytest

from ipfs_accelerate_py.console import matrix as console
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms.base import Coverage
from ipfs_accelerate_py.report.browser_support import SWITCHES, effects, support
from ipfs_accelerate_py.report.matrix import Column, Matrix, make_matrix, read_matrix
from ipfs_accelerate_py.report.matrix_sections import coverage_text, sections
from ipfs_accelerate_py.report.rating import NOT_MEASURED, SOFTWARE, Rated, device_class
from ipfs_accelerate_py.spec import PLATFORMS
from ipfs_accelerate_py.store.exchange import export, import_
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web.browsers import KNOWN

ROOT = Path(__file__).parents[2]
GPU = {"cpu_model": "a CPU", "logical_cpus": 8, "gpus": [{"name": "a GPU"}]}
NO_GPU = {"cpu_model": "a CPU", "logical_cpus": 2, "gpus": None}
numbers = count()


def row(platform: str, median_ms: float | None = 10.0, **changes: Any) -> dict[str, Any]:
    """A launch as the matrix reads it; without a median a failed one."""
    number = next(numbers)
    values: dict[str, Any] = {
        "launch_id": f"launch {number}",
        "campaign_id": "campaign",
        "model_class": "bert",
        "size": "small",
        "weights": "synthetic",
        "origin": "synthetic:0",
        "precision": "float32",
        "mode": "inference",
        "batch_size": 1,
        "sequence_length": 128,
        "new_tokens": None,
        "platform": platform,
        "engine": "any",
        "device": "default",
        "browser": None,
        "provenance": "measured",
        "status": "ok" if median_ms else "failed",
        "median_ms": median_ms,
        "accuracy_passed": True if median_ms else None,
        "accuracy_rule": "a rule",
        "coverage_share": 1.0,
        "software_adapter": None,
        "bytes_read_back": None,
        "error_message": None if median_ms else "It failed.",
        "error_class": None if median_ms else "load_failed",
        "error_phase": None if median_ms else "load",
        "started_at": number,
        "machine": GPU,
        "session_device": None,
        "browser_version": None,
        "threads": None,
        "time_share": None,
        "time_unknown": None,
    } | changes
    values.setdefault(
        "workload_hash", "-".join(str(values[name]) for name in ("model_class", "precision", "batch_size", "mode"))
    )
    values.setdefault("target_hash", "-".join(str(values[name]) for name in ("platform", "engine", "device", "browser")))
    return {**values, "spec_hash": f"{values['workload_hash']}:{values['target_hash']}"}


def cell(matrix: Matrix, platform: str, browser: str | None = None) -> Rated:
    return matrix.cell("bert", Column(platform, browser))[0]


@pytest.mark.parametrize(
    ("times", "rating"), [(1.0, "High"), (2.0, "High"), (2.01, "Medium"), (5.0, "Medium"), (5.01, "Limited"), (80.0, "Limited")]
)
def test_the_rule_follows_the_time_over_the_fastest_of_the_class(times: float, rating: str) -> None:
    """At its bounds; a much faster GPU does not make a CPU slow."""
    matrix = make_matrix([row("openvino", 10.0), row("cpu", 10.0 * times), row("cuda", 0.1)])
    found = cell(matrix, "cpu")
    assert (found.rating, found.slowdown, found.device_class) == (rating, pytest.approx(times), "CPU")
    assert cell(matrix, "openvino").rating == cell(matrix, "cuda").rating == "High"
    assert (found.rivals, cell(matrix, "cuda").rivals) == (1, 0)
    assert bool(found.reasons) is (rating != "High")


def test_several_workloads_count_by_their_geometric_mean() -> None:
    """Twice as slow in one and half in another is level; only works that both have measured are compared."""
    launches = [row("cpu", 10.0), row("openvino", 5.0), row("cpu", 10.0, batch_size=8), row("openvino", 40.0, batch_size=8)]
    matrix = make_matrix([*launches, row("openvino", 900.0, batch_size=32)])
    assert cell(matrix, "cpu").slowdown == pytest.approx(2.0**0.5)
    assert cell(matrix, "openvino").slowdown == pytest.approx(4.0**0.5)


def test_launches_weigh_by_their_median() -> None:
    """One slow launch of three changes nothing."""
    matrix = make_matrix([row("openvino", 10.0), *(row("cpu", time) for time in (10.0, 11.0, 500.0))])
    assert cell(matrix, "cpu").slowdown == pytest.approx(1.1) and cell(matrix, "cpu").launches_ok == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"coverage_share": 0.9999}, "99.9 % of the nodes"),
        ({"software_adapter": True}, "software adapter"),
    ],
)
def test_what_is_limited_however_fast(changes: dict, reason: str) -> None:
    """Coverage below 100 %, never rounded up to it, and software adapters."""
    found = cell(make_matrix([row("webgpu", 1.0, browser="firefox", **changes)]), "webgpu", "firefox")
    assert found.rating == "Limited" and reason in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "100 % of nodes and of time"),
        ({"time_share": 1.0}, "100 % of nodes, 100 % of time"),
        ({"coverage_share": 0.75, "time_share": 0.9996}, "75 % of nodes, 99.9 % of time"),
        ({"coverage_share": 0.75, "time_unknown": "no clock"}, "75 % of nodes; time: no clock"),
        ({"coverage_share": 0.75}, "75 % of nodes; time: not measured"),
        ({"coverage_share": None}, "not known"),
        ({"coverage_share": None, "engine": "torch"}, "torch has one provider"),
    ],
)
def test_coverage_is_of_nodes_and_of_time_or_says_why_not(changes: dict, text: str) -> None:
    """Of the time too where no other provider ran any node; never rounded up to 100 %."""
    (found,) = make_matrix([row("webgpu", 1.0, **changes)]).rows()
    assert coverage_text(found.rated, found.engine) == text
    if changes.get("time_share", 1) < 1:
        assert any("of the nodes, 99.9 % of their time" in reason for reason in found.rated.reasons)


def test_a_launch_that_was_lost_limits() -> None:
    """One of three crashed: the cell says so; a batch that did not fit is another workload and takes nothing away."""
    launches = [row("cpu"), row("cpu"), row("cpu", None)]
    found = cell(make_matrix(launches), "cpu")
    assert (found.rating, found.launches_ok) == ("Limited", 2)
    assert found.reasons == ("1 of 3 launches ended without a result: It failed.",)
    assert cell(make_matrix([row("cpu"), row("cpu", None, batch_size=64)]), "cpu").rating == "High"


def test_a_precision_that_gives_no_checked_result_limits() -> None:
    """Failed or wrong at float16, checked at float32: limited, with the reason."""
    for failed in (row("cuda", None, precision="float16"), row("cuda", 1.0, precision="float16", accuracy_passed=False)):
        found = cell(make_matrix([row("cuda"), failed]), "cuda")
        assert (found.rating, found.precisions) == ("Limited", ("float32",))
        assert "float16: " in found.reasons[0] and found.lacking == ("float16",)


def test_a_precision_that_a_platform_does_not_offer_is_stated_and_limits_nothing() -> None:
    """It was refused by the plan, without a launch: no platform has every precision."""
    refused = row("cuda", None, precision="int8", status="unsupported", error_phase="plan")
    found = cell(make_matrix([row("cuda"), refused]), "cuda")
    assert (found.rating, found.lacking, found.reasons) == ("High", ("int8",), ())


@pytest.mark.parametrize(
    ("launches", "reason"),
    [
        ([row("cuda", None)], "It failed."),
        ([row("cuda", 1.0, accuracy_passed=False)], "output check not passed (a rule)"),
        ([row("cuda", 1.0), row("cuda", 1.0, accuracy_passed=False)], "output check not passed (a rule)"),
        ([row("cuda", 1.0, accuracy_passed=None)], "output check not passed"),
        ([row("cuda", None, status="unsupported", error_message="No kernels.", error_phase="plan")], "No kernels."),
        ([], NOT_MEASURED),
    ],
)
def test_without_a_checked_result_a_cell_is_unavailable(launches: list, reason: str) -> None:
    """One launch whose output is wrong is enough; the reason is the store's."""
    found = cell(make_matrix(launches), "cuda")
    assert found.rating == "Unavailable" and found.slowdown is None
    assert found.reasons[0].startswith(reason)


def test_a_wrong_result_sets_no_standard() -> None:
    """However fast it was wrong, the others are not slow because of it."""
    matrix = make_matrix([row("openvino", 0.01, accuracy_passed=False), row("cpu", 10.0)])
    assert cell(matrix, "cpu").rating == "High"


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        (row("wasm", browser="firefox"), "CPU"),
        (row("openvino"), "CPU"),
        (row("openvino", device="GPU.1, 4 threads"), "GPU"),
        (row("openvino", device="NPU"), "NPU"),
        (row("webnn", session_device={"device_type": "gpu"}), "GPU"),
        (row("webnn", session_device={"device_type": "cpu"}), "CPU"),
        (row("webnn", session_device={"device_type": "npu"}), "NPU"),
        (row("webgpu", software_adapter=False), "GPU"),
        (row("webgpu", software_adapter=True), SOFTWARE),
        (row("webgpu", software_adapter=None), "GPU"),
        (row("webgpu", software_adapter=None, machine=NO_GPU), SOFTWARE),
        (row("mps"), "GPU"),
    ],
)
def test_class_of_device(launch: dict, expected: str) -> None:
    """What competes with what; an adapter that hides itself is software where there is no GPU."""
    assert device_class(launch) == expected


def test_a_software_adapter_competes_with_no_gpu() -> None:
    """The GPU's time does not make it slow, nor does its own time make the GPU fast."""
    matrix = make_matrix([row("webgpu", 90.0, browser="chromium", software_adapter=True), row("cuda", 1.0), row("cpu", 30.0)])
    assert cell(matrix, "webgpu", "chromium").slowdown == 1 and cell(matrix, "cuda").rivals == 0


def test_machines_are_kept_apart() -> None:
    """A slow machine's best is not measured against a fast machine's; the best rating over machines is shown with its machine."""
    slow, fast = {**NO_GPU, "cpu_model": "slow"}, {**NO_GPU, "cpu_model": "fast"}
    launches = [row("cpu", 1.0, machine=fast), row("openvino", 9.0, machine=fast), row("openvino", 80.0, machine=slow)]
    matrix = make_matrix(launches)
    assert [(found.platform, found.rated.rating) for found in matrix.rows()] == [
        ("cpu", "High"),
        ("openvino", "Limited"),
        ("openvino", "High"),
    ]
    rated, machine = matrix.cell("bert", Column("openvino"))
    assert rated.rating == "High" and machine and "slow" in matrix.machines[machine]


def test_simulated_launches_are_left_out_and_counted() -> None:
    """However fast, they neither rate a cell nor set its standard; the text says how many there were."""
    matrix = make_matrix(
        [row("cpu", 10.0), row("openvino", 0.1, provenance="simulated"), row("cuda", 0.1, provenance="simulated")]
    )
    assert cell(matrix, "cpu").slowdown == 1 and cell(matrix, "cuda").reasons == (NOT_MEASURED,)
    assert matrix.left_out == 2 and "2 simulated launches left out" in sections(matrix)[0].text


def test_training_is_rated_apart() -> None:
    """It neither runs a cell of inference nor is compared with it."""
    matrix = make_matrix([row("cpu", 10.0), row("cuda", 3.0, mode="training"), row("cpu", 30.0, mode="training")])
    assert cell(matrix, "cuda").reasons == (NOT_MEASURED,)
    assert [(found.platform, found.rated.rating) for found in matrix.rows("training")] == [("cpu", "High"), ("cuda", "High")]
    assert any(section.title.startswith("Training") for section in sections(matrix))


def test_effects_are_measured_or_say_that_they_are_not() -> None:
    """WebGPU against wasm in the same browser on the same machine; a software adapter is no GPU."""
    web = {"browser": "firefox", "software_adapter": False}
    launches = [
        row("wasm", 40.0, browser="firefox"),
        row("webgpu", 10.0, **web),
        row("webgpu", 8.0, precision="float16", **web),
    ]
    told = effects(make_matrix(launches), "firefox")
    assert told["WebGPU on a GPU against wasm"] == "0.25× the time (1 pair)"
    assert told["float16 against float32, WebGPU"] == "0.8× the time (1 pair)"
    assert told["the same, audio models"] == told["WebNN against wasm"] == "not measured"
    assert all(told[name] == "not measured" for name in SWITCHES)
    assert told["3-bit weights against 8-bit, wgsl"] == told["quantised KV cache, wgsl"] == "not measured"
    software = [row("wasm", 40.0, browser="firefox"), row("webgpu", 10.0, browser="firefox", software_adapter=True)]
    assert effects(make_matrix(software), "firefox")["WebGPU on a GPU against wasm"] == "not measured"


def test_low_bit_effects_are_the_language_model_engine_s_on_a_gpu() -> None:
    """Each width against 8 bits and a narrow cache against one of 16; onnxruntime-web's 4 bits and software adapters are others."""
    web = {"browser": "chromium", "software_adapter": False, "model_class": "llama"}
    launches = [
        row("webgpu", 20.0, engine="wgsl", precision="int8", kv_cache_bits="16", **web),
        row("webgpu", 10.0, engine="wgsl", precision="int4", kv_cache_bits="16", **web),
        row("webgpu", 12.0, engine="wgsl", precision="int4", kv_cache_bits="2", **web),
        row("webgpu", 1.0, precision="int4", **web),
        row("webgpu", 1.0, engine="wgsl", precision="int3", **{**web, "software_adapter": True}),
    ]
    told = effects(make_matrix(launches), "chromium")
    assert told["4-bit weights against 8-bit, wgsl"] == "0.55× the time (1 pair)"
    assert told["quantised KV cache, wgsl"] == "1.2× the time (1 pair)"
    assert told["3-bit weights against 8-bit, wgsl"] == "not measured"


def test_switches_are_told_from_their_own_launches_which_rate_no_platform(tmp_path: Path) -> None:
    """A campaign with shader warm-up on and off: its ratio stands in the browser's row, and its times, which passed no check, in no
    cell."""
    store = Store.create_or_open(tmp_path / "s.duckdb")
    campaign = store.begin_campaign({}, request_hash="r", command="benchmark", seed=0)
    spec = fixture.spec_of("bert", "webgpu-firefox")
    device = {"vendor": "acme", "software_adapter": False}
    spool(fixture.launch(spec, 0, 7.0, campaign_id=campaign, seed="rated"), store.spool_folder)
    for first, on, ms in ((1, False, 100), (4, True, 40)):
        for index in range(first, first + 3):
            facts = {"case": "c", "switches": {"precompilation": on}, "device": device, "link": "loopback"}
            made = fixture.launch(spec, index, float(ms), campaign_id=campaign, seed=f"{on} {index}")
            phases = {"load": (ms + index - first) * 10**6, "first_inference": 10**6}
            spool(replace(made, facts=facts, phases_ns=phases, accuracy=None), store.spool_folder)
    store.ingest()
    matrix = read_matrix([store.path])
    assert len(matrix.launches) == 1
    assert cell(matrix, "webgpu", "firefox").rating != "Unavailable"
    told = effects(matrix, "firefox")["shader warm-up"]
    assert told.startswith("0.41× the time of navigation to first result (")
    assert told.endswith("bert small, 3 and 3 launches, loopback, the page alone) on acme GPU")
    assert effects(matrix, "chromium")["shader warm-up"] == "not measured"


def test_browsers_that_never_ran_are_unverified() -> None:
    """Every known browser has a row; what WebGPU brings follows from whether it ran, and nobody vouches for the others."""
    matrix = make_matrix([row("webgpu", 9.0, browser="firefox", software_adapter=False), row("wasm", 9.0, browser="chromium")])
    offered = next(section for section in sections(matrix) if section.title == "What browsers offer")
    told = {cells[0]: dict(zip(offered.head, cells, strict=True)) for cells in offered.rows}
    assert told.keys() == set(KNOWN)
    assert told["firefox"]["verified"] == "yes: 1 launch"
    assert told["firefox"]["2, 3 and 4-bit weights"] == "can: it has WebGPU"
    assert told["chromium"]["2, 3 and 4-bit weights"] == "not asked"
    assert told["chromium"]["parallel loading"] == "can: it has a page"
    for key in ("chrome", "edge", "safari"):
        assert str(told[key]["verified"]).startswith("unverified")
        assert told[key]["parallel loading"] == "not asked"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of a measuring and a simulating campaign, and an export of it."""
    folder = tmp_path_factory.mktemp("matrix")
    store = Store.create_or_open(folder / "s.duckdb")
    probed = {
        "wasm": {"devices": [{"facts": {"browser": "firefox", "wasm": {"simd": True, "threads": False}}}]},
        "webnn": {"reason": "No browser has WebNN.", "remedy": ""},
        "mps": {"reason": "Metal is part of macOS.", "remedy": ""},
    }
    for provenance in ("measured", "simulated"):
        plan = {"launches": 4, "request": {"simulate": provenance == "simulated"}, "probed": probed}
        campaign = store.begin_campaign(plan, request_hash=provenance, command="bench", seed=0)
        for target, median_ms in (("openvino", 10.0), ("torch", 30.0)):
            spec = fixture.spec_of("bert", target)
            made = fixture.launch(spec, 0, median_ms, provenance=provenance, seed=provenance, campaign_id=campaign)
            spool(replace(made, coverage=Coverage("CPU", {"CPU": 9, "other": 1})), store.spool_folder)
    assert store.ingest().added == 4
    return store.path, export(store.path, folder / "export")


def test_sources_are_combined_and_a_launch_counts_once(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """A store, its export, and another store that imported it: the same launches, the same ratings."""
    import_(tmp_path / "other.duckdb", stores[1])
    alone, together = read_matrix(stores[:1]), read_matrix([*stores, tmp_path / "other.duckdb"])
    assert len(alone.launches) == len(together.launches) == alone.left_out == 2
    assert alone.to_dict() == together.to_dict()
    found = cell(alone, "cpu")
    assert found.rating == "Limited" and found.coverage == pytest.approx(0.9) and found.slowdown == pytest.approx(3, rel=0.1)


def test_what_campaigns_asked_and_did_not_find_is_the_reason(stores: tuple[Path, Path]) -> None:
    """A platform that is not there is no gap: its own sentence stands in the cell, and browsers' answers in their table."""
    matrix = read_matrix(stores[:1])
    assert cell(matrix, "mps").reasons == ("Metal is part of macOS.",)
    assert cell(matrix, "webnn", "firefox").reasons == ("No browser has WebNN.",)
    assert cell(matrix, "wasm", "firefox").reasons == (NOT_MEASURED,)  # it is there, and no launch tried it
    told = support(matrix, "firefox")
    assert told["wasm"] == "yes, it says" and told["webnn"] == "no: No browser has WebNN."
    assert (told["wasm SIMD"], told["wasm threads"], told["webgpu"]) == ("yes, it says", "no, it says", "not asked")


@pytest.mark.parametrize("format_", ["table", "markdown", "json", "html"])
def test_every_format_has_the_rule_the_counts_and_the_runs(stores: tuple[Path, Path], tmp_path: Path, format_: str) -> None:
    """Written to a file; HTML links a run to the report beside its store."""
    store, file = stores[0], tmp_path / "out"
    store.with_suffix(".html").write_text("a report")
    console.show([store], store, "without", format_, file, ask_browsers=False)
    text = " ".join(file.read_text().split())
    spec = fixture.spec_of("bert", "openvino").hash
    assert "within 5 times" in text and "Metal is part of macOS." in text and "Limited" in text
    if format_ == "json":
        content = json.loads(text)
        assert len(content["cells"]) == len(content["families"]) * (5 + 3 * len(KNOWN))
        assert {row["provenance"] for row in [content]} == {"measured"} and content["launches_left_out"] == 2
    else:
        assert "2 simulated launches left out" in text
    assert (f"{store.with_suffix('.html').as_uri()}#run={spec}" if format_ == "html" else spec) in text


def test_a_run_links_to_no_report_of_another_machine(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """The same spec measured elsewhere has another machine's launches, which the report beside this store does not show."""
    other = Store.create_or_open(tmp_path / "other.duckdb")
    campaign = other.begin_campaign({}, request_hash="r", command="bench", seed=0)
    spec = fixture.spec_of("bert", "openvino")
    spool(fixture.launch(spec, 0, 9.0, campaign_id=campaign, machine={"machine_id": "another"}), other.spool_folder)
    other.ingest()
    other.path.with_suffix(".html").write_text("a report")
    matrix = read_matrix([stores[0], other.path])
    machines = {row.machine for row in matrix.rows() if row.platform == "openvino"}
    assert len(machines) == 2
    linked = {
        machine for machine, hash_ in matrix.reports if hash_ == spec.hash and "other.html" in matrix.reports[machine, hash_]
    }
    assert len(linked) == 1


def test_a_reason_cannot_break_a_table_or_a_page(tmp_path: Path) -> None:
    """Pipes, line ends and markup of a foreign message are shown as they are."""
    hostile = "a | b\n<script>alert(1)</script> [bold]"
    store = Store.create_or_open(tmp_path / "s.duckdb")
    campaign = store.begin_campaign({}, request_hash="r", command="bench", seed=0)
    spool(
        fixture.launch(fixture.spec_of("bert", "torch"), 0, None, error_message=hostile, campaign_id=campaign),
        store.spool_folder,
    )
    store.ingest()
    for format_, shown in (
        ("markdown", r"a \| b &lt;script>alert(1)&lt;/script> [bold]"),
        ("html", "a | b &lt;script&gt;"),
        ("table", "a | b <script>alert(1)</script> [bold]"),
    ):
        console.show([store.path], store.path, "without", format_, tmp_path / format_, ask_browsers=False)
        assert shown in (tmp_path / format_).read_text()


def test_mistakes_are_told(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """A format or a store that does not exist, nothing to read, and a file that would overwrite a store."""
    with pytest.raises(UserError, match=r"Unknown format 'markdwn'.*markdown"):
        console.show([], stores[0], "only", "markdwn", None, ask_browsers=False)
    with pytest.raises(UserError, match="There is no store"):
        console.show([tmp_path / "none.duckdb"], stores[0], "without", "table", None, ask_browsers=False)
    with pytest.raises(UserError, match="nothing to rate"):
        console.show([], tmp_path / "none.duckdb", "without", "table", None, ask_browsers=False)
    with pytest.raises(UserError, match="would overwrite the store"):
        console.show([stores[0]], stores[0], "without", "table", stores[0], ask_browsers=False)


def test_docs_are_what_the_command_writes() -> None:
    """docs/matrix.md follows from the reference data and the installed model classes: run 'make docs' when it does not."""
    command = [sys.executable, "-m", "ipfs_accelerate_py.cli", "matrix", "--reference", "only", "--format", "markdown"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8") == done.stdout
    assert all(platform in done.stdout for platform in PLATFORMS)
