"""Getting a simulated row past each gate: the spool, export, import, comparison, ranking, SQL views, figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store_launches import SPEC, make_launch

from ipfs_accelerate_py.console import comparison
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.compare import compare_records
from ipfs_accelerate_py.report import figures
from ipfs_accelerate_py.report.cells import SIMULATED_MARK, cells, fastest_medians, rankings
from ipfs_accelerate_py.report.data import from_store
from ipfs_accelerate_py.report.findings import findings
from ipfs_accelerate_py.spec import Target
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.exchange import export, import_
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store

OTHER = replace(SPEC, target=Target(platform="openvino", engine="openvino"))
FAST = (1_000, 1_001, 1_002)  # a simulated time that would win every ranking


def begin(store: Store, *, simulate: bool) -> str:
    plan = {"launches": 4, "request": {"simulate": simulate}}
    return store.begin_campaign(plan, request_hash=f"request {simulate}", command="bench", seed=0)


@pytest.fixture
def mixed(store: Store) -> Store:
    """Four measured launches of two cells, and of the same cells four simulated ones that are much faster."""
    measured, simulated = begin(store, simulate=False), begin(store, simulate=True)
    for index in range(4):
        for spec in (SPEC, OTHER):
            spool(make_launch(measured, index, spec, weights_bytes=1000), store.spool_folder)
            made_up = {"weights_bytes": 1000, "provenance": "simulated", "facts": {"simulated": "drawn"}, "samples_ns": FAST}
            spool(make_launch(simulated, index, spec, **made_up), store.spool_folder)
    assert store.ingest().added == 16
    return store


@pytest.mark.parametrize(
    ("simulate", "changes"),
    [
        (False, {"provenance": "simulated"}),
        (True, {"provenance": "measured"}),
        (False, {"provenance": "measured", "facts": {"simulated": "drawn"}}),
    ],
)
def test_a_launch_cannot_complete_a_campaign_of_the_other_provenance(store: Store, simulate: bool, changes: dict) -> None:
    """Also one that lies about itself is set aside, and a campaign to resume does not count it as done."""
    spool(make_launch(begin(store, simulate=simulate), **changes), store.spool_folder)
    ((_, reason),) = store.ingest().set_aside
    assert "provenance" in reason
    resumable = store.resumable_campaign(f"request {simulate}")
    assert resumable and resumable.done == set()


def test_every_exported_table_of_results_has_the_mark(mixed: Store, tmp_path: Path) -> None:
    """Parquet, CSV and JSON: each launch's own provenance on each of its rows, and counted in the manifest."""
    truth = {record.launch_id: record.provenance for record in queries.records(mixed.path)}
    results = ("launch", "accuracy", "launch_summary")
    tables: list[list[dict]] = []
    folder = export(mixed.path, tmp_path / "parquet")
    tables += [pq.read_table(folder / f"{name}.parquet").to_pylist() for name in results[:2]]
    folder = export(mixed.path, tmp_path / "csv", "csv")
    for name in results:
        with (folder / f"{name}.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    content = json.loads(export(mixed.path, tmp_path / "all.json", "json").read_text())
    tables += [content["tables"][name] for name in results[:2]]
    for rows in tables:
        assert {row["launch_id"]: row["provenance"] for row in rows} == truth
    counts = {"measured": 8, "simulated": 8}
    assert content["provenance"] == counts == json.loads((tmp_path / "parquet" / "manifest.json").read_text())["provenance"]


@pytest.mark.parametrize("format_", ["parquet", "json"])
def test_an_import_keeps_the_mark(mixed: Store, tmp_path: Path, format_: str) -> None:
    """Launches and their checks come back as they were."""
    other = tmp_path / "other.duckdb"
    import_(other, export(mixed.path, tmp_path / "out", format_))
    assert queries.records(other) == queries.records(mixed.path)


def test_an_import_that_lost_the_mark_is_refused_whole(mixed: Store, tmp_path: Path) -> None:
    """Rewriting the column is not enough: the campaign and the launch's own facts say it too."""
    file = export(mixed.path, tmp_path / "all.json", "json")
    content = json.loads(file.read_text())
    for row in content["tables"]["launch"]:
        row["provenance"] = "measured"
    for campaign in content["tables"]["campaign"]:
        campaign["plan"]["request"]["simulate"] = False
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="nothing was imported: the provenance of a launch"):
        import_(tmp_path / "other.duckdb", file)
    assert not (tmp_path / "other.duckdb").exists()


def test_an_older_export_without_the_column_is_still_read(mixed: Store, tmp_path: Path) -> None:
    """``accuracy`` had no such column in schema 2; its launch has."""
    file = export(mixed.path, tmp_path / "all.json", "json")
    content = json.loads(file.read_text())
    content["schema_version"] = 2
    for row in content["tables"]["accuracy"]:
        del row["provenance"]
    file.write_text(json.dumps(content))
    assert import_(tmp_path / "other.duckdb", file).added == 16


def test_training_is_not_compared_with_inference(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Their names differ by the mode alone: inference is meant unless training is said."""
    campaign = begin(store, simulate=False)
    for spec in (SPEC, OTHER):
        for mode in ("inference", "training"):
            for index in range(2):
                one = replace(spec, workload=replace(spec.workload, mode=mode))
                spool(make_launch(campaign, index, one), store.spool_folder)
    store.ingest()
    model, place, other = SPEC.workload.model_class, SPEC.target.platform, OTHER.target.platform
    comparison.show(store.path, f"{model} {place}", f"{model} {other}", as_json=False)
    assert "training" not in capsys.readouterr().out
    comparison.show(store.path, f"{model} {place} training", f"{model} {other} training", as_json=False)
    assert capsys.readouterr().out.count("/training/") == 2
    with pytest.raises(UserError, match="Training is not compared with inference"):
        comparison.show(store.path, f"{model} {place} training", f"{model} {other}", as_json=False)


def test_measured_is_not_compared_with_simulated(mixed: Store) -> None:
    """By records, and by words on the command line."""
    records = queries.records(mixed.path)
    measured = [record for record in records if record.provenance == "measured"]
    simulated = [record for record in records if record.provenance == "simulated"]
    sentence = "measured is not compared with what was simulated"
    for a, b in ((measured, simulated), (simulated, measured), (measured[:1] + simulated[:1], simulated)):
        with pytest.raises(UserError, match=sentence):
            compare_records(a, b)
    with pytest.raises(UserError, match=sentence):
        comparison.show(mixed.path, "bert cpu", "bert openvino simulated", as_json=False)


def test_comparing_simulated_with_simulated_says_so(mixed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """In every line, and in JSON; without the word the measured cells are meant."""
    comparison.show(mixed.path, "bert cpu simulated", "bert openvino simulated", as_json=False)
    *rows, verdict = capsys.readouterr().out.splitlines()
    assert all("simulated" in row for row in rows) and verdict.startswith("Simulated, not measured")
    comparison.show(mixed.path, f"{SPEC.hash} simulated", "bert openvino simulated", as_json=True)
    assert json.loads(capsys.readouterr().out)["provenance"] == "simulated"
    comparison.show(mixed.path, SPEC.hash, OTHER.hash, as_json=False)
    assert "simulated" not in capsys.readouterr().out.lower()


def test_views_never_mix_and_never_rank_it(mixed: Store) -> None:
    """A row of a view is of one provenance; pooled percentiles and medians are of that one; only measured rows are ranked."""
    for campaign in (None, *(row["campaign_id"] for row in queries.campaigns(mixed.path))):
        for row in queries.spec_summaries(mixed.path, campaign):
            assert row["ranked"] is (row["provenance"] == "measured")
            assert row["launches_ok"] == 4 and row["n_samples"] == 12
            assert (row["max_median_ms"] < 1) is (row["provenance"] == "simulated") is (row["median_ms"] < 1)
    assert [row["provenance"] for row in queries.campaigns(mixed.path)] == ["simulated", "measured"]
    machine = queries.launches(mixed.path)[0]["machine_hash"]
    assert len(queries.durations(mixed.path, machine)) == 8  # an estimate rests on measured launches alone


def test_reports_rank_and_name_measured_launches_only(mixed: Store) -> None:
    """Neither the ranking, nor the fastest median, nor the sentences take a simulated time, however short."""
    data = from_store(mixed.path, "all")
    found = cells(data)
    for ranking in rankings(found):
        assert len(ranking.order) == 2 and all(not cell.simulated for cell in ranking.order)
    assert min(fastest_medians(found).values()) > 1
    told = findings(data)
    assert "simulated" not in told[0] and "2 are simulated; none of these is ranked" in told[2]
    (simulated,) = {row["campaign_id"] for row in queries.launches(mixed.path, provenance="simulated")}
    assert all(not ranking.order for ranking in rankings(cells(from_store(mixed.path, simulated))))


@pytest.mark.parametrize("draw", [figures.latency, figures.phases, figures.memory])
def test_no_mark_or_bar_is_drawn_like_a_measured_one(mixed: Store, draw: Callable) -> None:
    """Each is pale and stands in a row that is named as simulated; those of measured cells are neither."""
    found = {cell.id: cell for cell in cells(from_store(mixed.path, "all"))}
    drawn = {True: 0, False: 0}
    for trace in draw(list(found.values())).data:
        for id_, row, opacity in zip(trace.customdata, trace.y, trace.marker.opacity, strict=True):
            simulated = found[id_].simulated
            drawn[simulated] += 1
            assert (SIMULATED_MARK in row) is simulated
            assert (opacity <= 0.5) is simulated
    assert drawn[True] and drawn[False]


def test_the_heat_map_shades_measured_cells_only(mixed: Store) -> None:
    """A simulated cell has its word and no shade, and does not set the scale of the others."""
    found = cells(from_store(mixed.path, "all"))
    figure = figures.heat_map([cell for cell in found if cell.simulated])
    assert all(value is None for row in figure.data[0].z for value in row)
    assert all(SIMULATED_MARK in annotation.text for annotation in figure.layout.annotations)
