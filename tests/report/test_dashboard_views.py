"""What the dashboard's views hold, against the store's own views, the report's ranking and numbers known beforehand."""

from __future__ import annotations

import io
import json
import math
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from statistics import median

import campaign_fixture as fixture
import dashboard_stores
import numpy as np
import plotly.graph_objects as go
import pyarrow.parquet as pq
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.history import history
from ipfs_accelerate_py.report import cells as report_cells
from ipfs_accelerate_py.report import figures
from ipfs_accelerate_py.report.dashboard import page, tables
from ipfs_accelerate_py.report.dashboard.detail import detail
from ipfs_accelerate_py.report.dashboard.filters import SEARCHED, Filters
from ipfs_accelerate_py.report.dashboard.launches import facet_counts, launches
from ipfs_accelerate_py.report.dashboard.snapshot import SANDBOX, Snapshot, Snapshots
from ipfs_accelerate_py.report.dashboard.tabular import encode, to_json
from ipfs_accelerate_py.report.dashboard.views import VIEWS, read
from ipfs_accelerate_py.report.data import from_store
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.writer import Store


@pytest.fixture(scope="module")
def snapshot(full_store: Path) -> Iterator[Snapshot]:
    with Snapshots(full_store) as snapshots:
        yield snapshots.current()


def rows_of(snapshot: Snapshot, name: str, **filters: str) -> list[dict]:
    return VIEWS[name].answer(snapshot, Filters.of(filters.items()))["rows"]


def test_the_matrix_has_the_medians_of_the_store(snapshot: Snapshot, full_store: Path) -> None:
    """Every cell of spec_summary, with its median, its launches and its provenance; nothing beside them."""
    expected = {
        (row["spec_hash"], row["provenance"], row["median_ms"], row["launches_ok"])
        for row in queries.spec_summaries(full_store)
        if row["launches_ok"]
    }
    own = {row["cell"]: row for row in tables.cells(snapshot)}
    told = [row for row in rows_of(snapshot, "matrix") if row["launches_ok"]]
    assert {
        (own[r["cell"]]["spec_hash"], own[r["cell"]]["provenance"], r["median_ms"], r["launches_ok"]) for r in told
    } == expected
    assert len(told) == len(expected) > 150


def test_kinds_are_those_of_the_report(snapshot: Snapshot, full_store: Path) -> None:
    """The rule in SQL rows and the rule over records agree for every cell, and all six kinds are there."""
    by_report: dict[tuple[str, str], set[str]] = {}
    for cell in report_cells.cells(from_store(full_store, "all")):
        by_report.setdefault((cell.first["spec_hash"], cell.first["provenance"]), set()).add(cell.kind)
    found = tables.cells(snapshot)
    assert {row["kind"] for row in found} == set(report_cells.KINDS)
    compared = 0
    for row in found:
        if row["launches_ok"]:
            assert row["kind"] in by_report[row["spec_hash"], row["provenance"]]
            compared += 1
    assert compared > 150


def test_intervals_and_verdicts_are_those_of_the_report(tmp_path: Path) -> None:
    """The same bootstrap and the same family of comparisons: equal bounds and equal words."""
    path = tmp_path / "s.duckdb"
    dashboard_stores.add(path, fixture.campaign(launches=4))
    found = report_cells.cells(from_store(path))
    with Snapshots(path) as snapshots:
        snapshot = snapshots.current()
        told = {row["cell"].split("-")[0]: row for row in rows_of(snapshot, "verdicts")}
        own = {row["spec_hash"]: row for row in tables.cells(snapshot)}
    bounds = {cell.id: cell.interval for cell in found if cell.kind == "measured"}
    for id_, interval in bounds.items():
        assert interval and (own[id_]["low_ms"], own[id_]["high_ms"]) == pytest.approx((interval.low, interval.high))
    words = {}
    for ranking in report_cells.rankings(found):
        words.update(
            {cell.id: comparison.verdict for cell, comparison in zip(ranking.order[1:], ranking.comparisons, strict=True)}
        )
    assert words and {id_: told[id_]["verdict"].split(",")[0] for id_ in words} == words


def test_simulated_and_measured_never_share_a_row_or_a_comparison(snapshot: Snapshot) -> None:
    """A simulated cell stands in a row of its own name, and no verdict, change or step is about one."""
    matrix = rows_of(snapshot, "matrix")
    by_row: dict[str, set[str]] = {}
    for row in matrix:
        by_row.setdefault(row["where"], set()).add(row["provenance"])
    assert all(len(provenances - {"predicted"}) <= 1 for provenances in by_row.values())
    assert all("simulated" in row["where"] for row in matrix if row["provenance"] == "simulated")
    for name in ("verdicts", "effects", "timeline"):
        rows = rows_of(snapshot, name)
        assert rows and {row["provenance"] for row in rows} == {"measured"}


def test_a_slowdown_is_a_step(snapshot: Snapshot, full_store: Path) -> None:
    """From the third of four campaigns on it takes twice as long: that point alone says slower, by about two, as ``history`` does."""
    steps = [row for row in rows_of(snapshot, "timeline") if row["step"] == "slower"]
    assert len(steps) == 1
    assert steps[0]["model_class"] == "bert" and steps[0]["target"].startswith("cpu · torch")
    assert steps[0]["ratio"] == pytest.approx(44.0 / 21.7, rel=0.1)
    assert steps[0]["started_at"].isoformat().startswith("2026-11-29")
    same = [row for row in rows_of(snapshot, "timeline") if row["cell"] == steps[0]["cell"]]
    assert len(same) == 4 and sum(row["step"] != "" for row in same) == 1
    own = next(row for row in tables.cells(snapshot) if row["cell"] == steps[0]["cell"])
    records = [
        record
        for record in queries.records(full_store)
        if record.spec.hash == own["spec_hash"] and record.machine == fixture.MACHINE and record.provenance == "measured"
    ]
    (step,) = history(records).steps
    assert (step.after.campaign, step.comparison.ratio) == (steps[0]["campaign"], pytest.approx(steps[0]["ratio"]))


def test_scaling_joins_what_differs_in_one_size_only(snapshot: Snapshot) -> None:
    """Batches 2, 4, 8 at each length, and lengths at each batch; every line has two points or more and one target."""
    lines: dict[tuple[str, str], list[dict]] = {}
    for row in rows_of(snapshot, "scaling", kind="measured"):
        lines.setdefault((row["axis"], row["where"]), []).append(row)
    own = {key: line for key, line in lines.items() if "Platinum 8481C" in line[0]["machine"]}  # the made-up ones
    at_32 = next(line for (axis, name), line in own.items() if axis == "batch size" and "32 tokens" in name)
    assert [row["x"] for row in at_32] == [2, 4, 8]
    assert all(len(line) > 1 and len({row["target"] for row in line}) == 1 for line in lines.values())
    assert all(len({row["machine"] for row in line}) == 1 for line in lines.values())


def test_an_effect_is_a_pair_that_differs_in_one_choice(snapshot: Snapshot) -> None:
    """int8 beside float32: about 9 ms against 17.8."""
    found = [row for row in rows_of(snapshot, "effects") if row["effect"] == "int8 instead of float32"]
    assert [row["verdict"] for row in found] == ["faster"]
    assert found[0]["ratio"] == pytest.approx(9.0 / 17.8, rel=0.1)


def test_bits_per_weight_are_counted_from_bytes(snapshot: Snapshot) -> None:
    """24 of 91 MB: 8.4 bits, scales and unquantised tables included."""
    found = [row for row in rows_of(snapshot, "agreement") if row["precision"] == "int8"]
    assert [row["bits_per_weight"] for row in found] == [pytest.approx(32 * 24 / 91)]


def test_a_perplexity_is_paired_with_the_float_weights_of_its_run(snapshot: Snapshot) -> None:
    """Student's t over the windows' differences, by hand: four windows, 3.182 standard errors. Every maker and the cache are there."""
    found = {row["precision"]: row for row in rows_of(snapshot, "quality", kind="measured")}
    assert set(found) == {"float32", *dashboard_stores.FORMATS}
    assert found["float32"]["perplexity"] == pytest.approx(math.exp(3.75)) and found["float32"]["perplexity_ratio_low"] is None
    for name, (bits, lost, maker, solver, cached) in dashboard_stores.FORMATS.items():
        row, half = found[name], 3.18245 * np.std(lost, ddof=1) / 2
        middle = np.mean(lost)
        assert row["perplexity"] == pytest.approx(math.exp(3.75 + middle))
        bounds = [row[f"perplexity_ratio{which}"] for which in ("", "_low", "_high")]
        assert bounds == pytest.approx([math.exp(middle + step) for step in (0, -half, half)], rel=1e-5)
        assert [row[key] for key in ("bits_per_weight", "made_by", "solver", "bits_per_cached_value")] == [
            bits,
            maker,
            solver,
            cached,
        ]
    assert {row["provenance"] for row in rows_of(snapshot, "quality", kind="simulated")} == {"simulated"}


def test_one_window_has_no_interval_and_no_reference_no_ratio(tmp_path: Path) -> None:
    """What cannot be known is empty, never zero or infinite; a format measured again stands once, as it was measured last."""
    from ipfs_accelerate_py.store.quality import QualityRow, QualitySession, add_quality

    path = tmp_path / "one.duckdb"
    for _ in range(2):
        dashboard_stores.add_perplexities(path, windows=1)
    session = QualitySession(model="alone", origin="folder:x", windows_sha256="1" * 64, machine=fixture.MACHINE)
    add_quality(path, session, [QualityRow(format="2 bits", bits_per_weight=2.0, nats=[5.0, 5.5], tokens=10)])
    rows = read(path, "quality")["rows"]
    assert len(rows) == len(dashboard_stores.FORMATS) + 2
    ratios = {(row["model"], row["perplexity_ratio_low"], row["perplexity_ratio"] is None) for row in rows}
    assert ratios == {("alone", None, True), ("llama, 19.9 million weights", None, False)}
    assert figures.quality(rows).data


def test_makers_of_formats_differ_without_colour(snapshot: Snapshot) -> None:
    """Symbol and words of ours, of each peer's and of the cache, measured and simulated: no two alike, and no simulated mark is filled."""
    figure = figures.quality(rows_of(snapshot, "quality"))
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert len(marks) == 8 == len({trace.marker.symbol for trace in marks}) == len({trace.name for trace in marks})
    assert all(("simulated" in trace.name) == trace.marker.symbol.endswith("-open") for trace in marks)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [len(trace.x) for trace in lines] == [2, 2] and all(
        trace.name.startswith("float: ") and max(trace.x) < 5 for trace in lines
    )
    drawn = next(trace for trace in marks if trace.name == "our weights")
    row = next(row for row in rows_of(snapshot, "quality", kind="measured") if row["precision"] == "3 bits, gptq")
    place = list(drawn.customdata).index(row["key"])
    high = math.exp(3.75) * row["perplexity_ratio_high"]
    assert drawn.y[place] + drawn.error_y.array[place] == pytest.approx(high)


def test_launches_have_the_quantiles_of_their_samples(snapshot: Snapshot, full_store: Path) -> None:
    """Against the raw samples of the store."""
    raw = {record.launch_id: record.samples_ns for record in queries.records(full_store) if record.status == "ok"}
    found = [row for row in launches(snapshot)[0] if row["status"] == "ok"]
    assert len(found) == len(raw)
    for row in found:
        expected = [value / 1e6 for value in np.quantile(raw[row["launch_id"]], [0.05, 0.25, 0.75, 0.95])]
        assert [row[name] for name in ("p5_ms", "p25_ms", "p75_ms", "p95_ms")] == pytest.approx(expected)
        assert row["median_ms"] == pytest.approx(median(raw[row["launch_id"]]) / 1e6)


@pytest.mark.parametrize(
    "pairs",
    [
        (("model_class", "bert"), ("model_class", "vit"), ("platform", "cpu")),
        (("kind", "failed"), ("search", "ENDED compile")),
        (("kind", "failed"), ("search", "it ended.")),
        (("browser", ""), ("search", "openvino small")),
        (("campaign", "first"), ("search", "bert")),
        (("search", "first"),),
        (("search", "no such thing anywhere"),),
        (("platform", "nowhere"),),
        (("machine", "nowhere' OR true --"),),
        (("search", "'; DROP TABLE launch; -- %"),),
    ],
)
def test_launches_are_filtered_in_sql_as_rows_are(snapshot: Snapshot, pairs: tuple[tuple[str, str], ...]) -> None:
    """The same launches pass as when every row is looked at in Python; a cut list has the first of them, and the number of all."""
    every, total = launches(snapshot)
    assert total == len(every) == snapshot.rows("SELECT count(*) AS n FROM launch")[0]["n"]
    campaign = every[0]["campaign"]
    filters = Filters.of((name, campaign if value == "first" else value) for name, value in pairs)
    found, count = launches(snapshot, filters)
    assert [row["launch_id"] for row in found] == [row["launch_id"] for row in filters.keep(every)] and count == len(found)
    cut, of = launches(snapshot, filters, 3)
    assert [row["launch_id"] for row in cut] == [row["launch_id"] for row in found[:3]] and of == count
    assert {name for name in SEARCHED if name not in every[0]} == {"verdict"}


def test_facets_of_a_cut_view_count_every_launch(snapshot: Snapshot) -> None:
    """Also those that are not shown, so that a filter can bring them."""
    every, counted = launches(snapshot)[0], facet_counts(snapshot)
    for name in tables.FACETS:
        expected: dict[str, int] = {}
        for row in every:
            value = "" if row[name] is None else str(row[name])
            expected[value] = expected.get(value, 0) + 1
        assert counted[name] == expected, name


def test_predictions_stand_beside_measurements_and_are_marked(tmp_path: Path) -> None:
    """One of a measured cell is compared with it; one of what was not measured is a predicted tile, with its band, and never ranked."""
    from ipfs_accelerate_py.store import observed

    path = tmp_path / "p.duckdb"
    dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), index, 20.0) for index in range(4)])
    machine = queries.launches(path)[0]["machine_hash"]
    bands = {"latency_ms": 25.0, "latency_low_ms": 18.0, "latency_high_ms": 40.0, "machine_hash": machine}
    observed.add_predictions(
        path, [{**dashboard_stores.PREDICTED, **bands}, {**dashboard_stores.PREDICTED, **bands, "batch_size": 8}]
    )
    told = read(path, "predictions")
    assert [(row["predicted_ms"], row["verdict"], row["regime"]) for row in told["rows"]] == [(25.0, "inside", "new model")]
    tiles = [row for row in read(path, "matrix")["rows"] if row["kind"] == "predicted"]
    assert [(row["batch_size"], row["low_ms"], row["high_ms"], row["provenance"]) for row in tiles] == [
        (8, 18.0, 40.0, "predicted")
    ]
    figure = figures.platform_matrix(read(path, "matrix")["rows"])
    drawn = next(trace for trace in figure.data if trace.name == "predicted")
    assert "predicted" in drawn.text[0] and drawn.marker.pattern.shape
    assert all(row["provenance"] == "measured" for row in read(path, "verdicts")["rows"])


def test_a_roofline_has_measured_ceilings(tmp_path: Path) -> None:
    """What bert reached, from its counted FLOPs and its median, below the lower of the two roofs of the probe."""
    observed = pytest.importorskip("ipfs_accelerate_py.store.observed")
    from ipfs_accelerate_py.graph import count, describe

    path = tmp_path / "p.duckdb"
    dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), index, 20.0) for index in range(2)])
    rates = [
        {"kind": "matmul", "precision": "float32", "size": 1e9, "value": 2e11},
        {"kind": "bandwidth", "precision": "float32", "size": 1e8, "value": 1e10},
    ]
    observed.add_probe(
        path,
        fixture.TARGETS["torch"],
        fixture.MACHINE,
        fixture.ENVIRONMENT,
        [{**r, "samples_ns": [1], "facts": {}} for r in rates],
    )
    row = read(path, "roofline")["rows"][0]
    counts = count(describe("bert", "small"), batch_size=1, sequence_length=128)
    assert row["gflops"] == pytest.approx(counts.flops / (row["median_ms"] * 1e6))
    assert row["roof_gflops"] == pytest.approx(min(200.0, 10.0 * counts.flops / counts.bytes_moved))


@pytest.mark.parametrize("name", VIEWS)
def test_each_figure_marks_its_rows(snapshot: Snapshot, name: str) -> None:
    """Valid in both themes; every mark has the key of a row, by which the page filters; a row that has the number is drawn."""
    rows = rows_of(snapshot, name)
    assert rows, f"the full store leaves {name} empty"
    for dark in (False, True):
        figure = VIEWS[name].figure(rows, dark)
        assert isinstance(figure, go.Figure)
        assert {trace.type for trace in figure.data} <= {"bar", "scatter"}, "the page's bundle of Plotly draws nothing else"
        marked = [trace for trace in figure.data if trace.customdata is not None]
        keys = {row["key"] for row in rows}
        assert marked and all(len(trace.customdata) == len(trace.x) == len(trace.y) for trace in marked)
        assert {key for trace in marked for key in trace.customdata} <= keys
    if name == "matrix":
        assert sorted(key for trace in marked for key in trace.customdata) == sorted(keys)


def test_the_page_has_the_bundle_of_the_same_plotly() -> None:
    """Built into the package, of the version that made the figures, and a third of the whole script at most."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    text = page.library()
    assert f"plotly.js (basic - minified) v{get_plotlyjs_version()}" in text[:200]
    assert len(text) < len(get_plotlyjs()) / 3


def test_kinds_differ_without_colour() -> None:
    """Each kind has words of its own, a symbol of its own and, where it is a tile with a number, a pattern of its own."""
    from ipfs_accelerate_py.report.figures.rows import KIND_MARKS

    marks = list(KIND_MARKS.values())
    assert len({words for words, *_ in marks}) == len({symbol for _, _, symbol, _ in marks}) == len(marks)
    numbers = [pattern for kind, (_, _, _, pattern) in KIND_MARKS.items() if kind not in ("failed", "unsupported")]
    assert len(set(numbers)) == len(numbers)


def test_filters_combine(snapshot: Snapshot) -> None:
    """Values of one facet are alternatives, facets and words must all be met; an unknown facet is named."""
    rows = VIEWS["matrix"].find(snapshot, Filters()).rows
    kept = Filters.of(
        [("model_class", "bert"), ("model_class", "vit"), ("platform", "webgpu"), ("search", "firefox SMALL")]
    ).keep(rows)
    assert kept and all(row["model_class"] in ("bert", "vit") and row["browser"] == "firefox" for row in kept)
    assert len(kept) == sum(
        row["model_class"] in ("bert", "vit") and row["platform"] == "webgpu" and "firefox" in row["target"] for row in rows
    )
    with pytest.raises(UserError, match="Unknown filter 'platfrm': did you mean platform"):
        Filters.of([("platfrm", "cpu")])


def test_the_page_filters_as_the_server_does(snapshot: Snapshot, tmp_path: Path) -> None:
    """The page's own code, run by Node.js on the same rows, keeps the same ones."""
    import shutil

    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed: apt install nodejs")
    rows = [{**row, "key": key} for key, row in enumerate(rows_of(snapshot, "matrix"))]
    questions = [
        {"facets": {"platform": ["cpu", "wasm"]}, "search": ""},
        {"facets": {"browser": [""], "kind": ["measured"]}, "search": "bert"},
        {"facets": {"batch_size": ["8"]}, "search": ""},
        {"facets": {}, "search": "H200 torch"},
        {"facets": {"model_class": ["none of these"]}, "search": ""},
    ]
    module = Path(page.__file__).parent / "assets" / "filters.js"
    (tmp_path / "filters.mjs").write_text(module.read_text())
    (tmp_path / "in.json").write_bytes(to_json({"rows": rows, "questions": questions}))
    script = """
        import { keepRows } from "./filters.mjs"; import { readFileSync } from "node:fs";
        const { rows, questions } = JSON.parse(readFileSync("in.json"));
        console.log(JSON.stringify(questions.map((one) => keepRows(rows, one.facets, one.search).map((row) => row.key))));
    """
    (tmp_path / "run.mjs").write_text(script)
    told = json.loads(
        subprocess.run([node, "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    )
    expected = [
        [row["key"] for row in Filters({k: tuple(v) for k, v in one["facets"].items()}, one["search"]).keep(rows)]
        for one in questions
    ]
    assert told == expected
    assert [bool(keys) for keys in told] == [True, True, True, True, False]


def test_no_two_modules_of_the_page_share_a_name() -> None:
    """They are joined into one script, where the second of a name would take the place of the first."""
    import re

    names: list[str] = []
    for name in page.MODULES:
        text = (Path(page.__file__).parent / "assets" / f"{name}.js").read_text()
        names += re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", text, re.M)
    assert len(names) > 50
    assert sorted(set(names)) == sorted(names)


def test_details_have_everything_of_a_cell(snapshot: Snapshot, full_store: Path) -> None:
    """Every raw sample, the machine and environment, the check, and a command that names the cell."""
    cell = next(
        row
        for row in tables.cells(snapshot)
        if row["kind"] == "measured" and row["platform"] == "openvino" and row["model_class"] == "bert"
    )
    told = detail(snapshot, cell["cell"])
    raw = {record.launch_id: list(record.samples_ns) for record in queries.records(full_store)}
    assert told["launches"] and all(launch["samples_ns"] == raw[launch["launch_id"]] for launch in told["launches"])
    assert "--models bert" in told["command"] and "--platforms openvino" in told["command"]
    assert told["machines"][0]["facts"] and told["launches"][0]["accuracy_rule"]
    assert len(told["figure"]["data"]) == len(told["launches"])
    with pytest.raises(UserError, match="no cell 'nowhere'"):
        detail(snapshot, "nowhere")


@pytest.mark.parametrize("format_", ["csv", "json", "parquet"])
def test_exports_hold_the_rows(format_: str) -> None:
    """Texts with commas, quotes and line ends, and what is not there, come back as they were."""
    rows = [
        {"model": 'a,"b"\n', "median_ms": 1.5, "when": datetime(2026, 1, 2)},
        {"model": "", "median_ms": None, "when": None},
    ]
    content = encode(rows, ["model", "median_ms", "when"], format_)
    if format_ == "csv":
        assert content.decode() == 'model,median_ms,when\n"a,""b""\n",1.5,2026-01-02 00:00:00\n,,\n'
        return
    told = json.loads(content) if format_ == "json" else pq.read_table(io.BytesIO(content)).to_pylist()
    assert [(row["model"], row["median_ms"]) for row in told] == [('a,"b"\n', 1.5), ("", None)]


def test_numbers_that_are_none_become_null() -> None:
    """JSON has neither not-a-number nor infinity, and a page must not fail on one."""
    assert json.loads(to_json({"a": float("nan"), "b": [float("inf"), 1.0]})) == {"a": None, "b": [None, 1.0]}


def test_what_takes_long_is_made_once_and_keeps_nothing_else_waiting(full_store: Path) -> None:
    """Two ask for the same while it is being made: it is made once. Another question is answered meanwhile."""
    started, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def slow() -> int:
        started.set()
        assert go_on.wait(60)
        made.append(1)
        return 7

    with Snapshots(full_store) as snapshots, ThreadPoolExecutor(3) as pool:
        snapshot = snapshots.current()
        waiting = [pool.submit(snapshot.kept, "slow", slow) for _ in range(2)]
        assert started.wait(60)
        other = pool.submit(lambda: snapshot.kept("other", lambda: snapshot.rows("SELECT count(*) AS n FROM launch")[0]["n"]))
        assert other.result(60) > 0 and not any(one.done() for one in waiting)
        go_on.set()
        assert [one.result(60) for one in waiting] == [7, 7] and made == [1]


def test_a_store_that_needs_too_much_memory_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and smaller questions are answered all the same."""
    Store.create_or_open(tmp_path / "s.duckdb")
    monkeypatch.setitem(SANDBOX, "memory_limit", "30MB")
    with Snapshots(tmp_path / "s.duckdb") as snapshots:
        with pytest.raises(UserError, match="takes 30MB of memory at most: export one campaign"):
            snapshots.current().rows("SELECT list(hash(range)) FROM range(20000000)")
        assert snapshots.current().rows("SELECT 1 AS one") == [{"one": 1}]


def test_a_large_store_is_answered_and_cut_with_a_sentence(tmp_path: Path) -> None:
    """A million samples: intervals give way to ranges, launches to the first of them, and both say so."""
    from ipfs_accelerate_py.report.dashboard.synthetic import fill

    path = tmp_path / "large.duckdb"
    assert fill(path, 4000, 250) == 4000
    with Snapshots(path) as snapshots:
        snapshot = snapshots.current()
        assert snapshot.rows("SELECT sum(len(samples_ns)) AS n FROM launch")[0]["n"] > 950_000
        matrix = VIEWS["matrix"].answer(snapshot)
        launches = VIEWS["launches"].answer(snapshot)
        narrow = VIEWS["launches"].answer(snapshot, Filters.of([("model_class", "xclip")]))
    assert len(matrix["rows"]) == 800 and "range of launch medians" in matrix["note"]
    assert len(launches["rows"]) == 2000 and launches["partial"] and "first 2,000 of 4,000" in launches["note"]
    assert narrow["rows"] and not narrow["partial"] and {row["model_class"] for row in narrow["rows"]} == {"xclip"}


def test_a_store_without_launches_names_the_command(tmp_path: Path) -> None:
    """Every view is empty and says with which command it fills."""
    Store.create_or_open(tmp_path / "empty.duckdb")
    with Snapshots(tmp_path / "empty.duckdb") as snapshots:
        for view in VIEWS.values():
            told = view.answer(snapshots.current())
            assert told["rows"] == [] and told["figure"] is None
            assert told["empty"]["sentence"] and told["empty"]["command"].startswith("ipfs-accelerate ")
