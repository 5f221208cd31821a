"""The numbers of the views against NumPy, and what is ranked."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from store_launches import PASSED, SPEC, make_launch
from strategies import targets

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms.base import Coverage
from ipfs_accelerate_py.spec import Spec, Target, identity
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.connection import connect
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store


def put(store: Store, *records) -> None:
    for record in records:
        spool(record, store.spool_folder)
    assert store.ingest().added == len(records)


def samples(count: int, seed: int) -> tuple[int, ...]:
    generator = random.Random(seed)
    return tuple(int(generator.lognormvariate(15, 0.5)) for _ in range(count))


def test_launch_summary_agrees_with_numpy(store: Store, begin) -> None:
    """Medians, throughput, phases, memory and coverage in the units of their names."""
    spec = replace(SPEC, workload=replace(SPEC.workload, batch_size=4, new_tokens=8))
    record = make_launch(
        begin(store),
        spec=spec,
        samples_ns=samples(10, 0),
        first_token_ns=samples(10, 1),
        per_token_ns=samples(9, 2),
        phases_ns={
            "fetch": 1_500_000,
            "load": 2_000_000,
            "compile": 3_000_000,
            "first_inference": 4_000_000,
            "warm_up": 5_000_000,
        },
        host_peak_bytes=2_500_000,
        device_peak_bytes=None,
        weights_bytes=1_000_000,
        coverage=Coverage("webgpu", {"webgpu": 3, "wasm": 1}),
        software_adapter=True,
        steady=False,
    )
    put(store, record)
    (row,) = queries.launches(store.path)
    assert row["median_ms"] == pytest.approx(np.median(record.samples_ns) / 1e6)
    assert row["time_to_first_token_ms"] == pytest.approx(np.median(record.first_token_ns) / 1e6)
    assert row["time_per_output_token_ms"] == pytest.approx(np.median(record.per_token_ns) / 1e6)
    assert row["throughput_per_s"] == pytest.approx(4 / (np.median(record.samples_ns) / 1e9))
    phases = [row[f"{name}_ms"] for name in ("fetch", "load", "compile", "first_inference", "warm_up")]
    assert phases == [1.5, 2, 3, 4, 5]
    assert (row["host_peak_mb"], row["device_peak_mb"], row["weights_mb"]) == (2.5, None, 1)
    assert record.coverage and row["coverage_share"] == record.coverage.share == 0.75
    assert (row["software_adapter"], row["steady"], row["n_samples"]) == (True, False, 10)
    assert (row["accuracy_passed"], row["cosine"]) == (True, PASSED.cosine)


def test_failed_launch_has_a_row_and_no_result(store: Store, begin) -> None:
    """What a failed launch left of samples is no result; its reason is there."""
    failed = make_launch(
        begin(store), status="failed", error_class="timeout", error_message="too slow", error_phase="steady", phases_ns={}
    )
    put(store, failed)
    (row,) = queries.launches(store.path)
    assert (row["median_ms"], row["throughput_per_s"], row["load_ms"]) == (None, None, None)
    (cell,) = queries.spec_summaries(store.path)
    assert (cell["launches_ok"], cell["launches_failed"], cell["median_ms"], cell["ranked"]) == (0, 1, None, False)
    assert (cell["latest_error_class"], cell["latest_error_message"]) == ("timeout", "too slow")


def test_coverage_of_no_nodes_is_zero(store: Store, begin) -> None:
    """As in ``Coverage.share``; unknown coverage is NULL."""
    campaign = begin(store)
    found = [Coverage("webnn", {}), Coverage("webnn", {"wasm": 2}), None]
    put(store, *(make_launch(campaign, index, coverage=coverage) for index, coverage in enumerate(found)))
    assert [row["coverage_share"] for row in queries.launches(store.path)] == [0, 0, None]


def test_spec_summary_agrees_with_numpy(store: Store, begin) -> None:
    """The median of launch medians, their range, and percentiles over all iterations of launches that ended well."""
    campaign = begin(store)
    series = [samples(n, n) for n in (100, 101, 120)]
    put(
        store,
        *(make_launch(campaign, index, samples_ns=values) for index, values in enumerate(series)),
        make_launch(campaign, 3, status="failed", samples_ns=(10**12,)),
    )
    (row,) = queries.spec_summaries(store.path, campaign)
    medians = [np.median(values) / 1e6 for values in series]
    assert row["median_ms"] == pytest.approx(np.median(medians))
    assert (row["min_median_ms"], row["max_median_ms"]) == pytest.approx((min(medians), max(medians)))
    pooled = np.concatenate(series) / 1e6
    for percent in (90, 95, 99):
        assert row[f"p{percent}_ms"] == pytest.approx(np.percentile(pooled, percent))
    assert (row["n_samples"], row["launches_ok"], row["launches_failed"], row["ranked"]) == (321, 3, 1, True)


@pytest.mark.parametrize(("count", "given"), [(28, 0), (29, 1), (58, 1), (59, 2), (298, 2), (299, 3)])
def test_percentiles_need_enough_samples(store: Store, begin, count: int, given: int) -> None:
    """p90 from 29 samples, p95 from 59, p99 from 299; otherwise NULL."""
    put(store, make_launch(begin(store), samples_ns=samples(count, 0)))
    (row,) = queries.spec_summaries(store.path)
    assert [row[name] is not None for name in ("p90_ms", "p95_ms", "p99_ms")] == [place < given for place in range(3)]


@pytest.mark.parametrize(
    ("checks", "ranked"),
    [([PASSED, PASSED], True), ([PASSED, replace(PASSED, passed=False)], False), ([PASSED, None], False), ([None], False)],
)
def test_only_what_was_checked_and_passed_is_ranked(store: Store, begin, checks, ranked: bool) -> None:
    """One launch that failed its output check, or had none, keeps the cell out of the ranking."""
    campaign = begin(store)
    put(store, *(make_launch(campaign, index, accuracy=check) for index, check in enumerate(checks)))
    (row,) = queries.spec_summaries(store.path)
    assert row["ranked"] is ranked


def test_measured_and_simulated_and_machines_never_share_a_row(store: Store, begin) -> None:
    """A cell is a spec on a machine with a provenance."""
    campaign = begin(store)
    put(
        store,
        make_launch(campaign, 0),
        make_launch(campaign, 1, provenance="simulated"),
        make_launch(campaign, 2, machine={"cpu": "two"}),
    )
    rows = queries.spec_summaries(store.path)
    assert sorted((row["provenance"], row["launches_ok"]) for row in rows) == [
        ("measured", 1),
        ("measured", 1),
        ("simulated", 1),
    ]
    assert len(queries.spec_summaries(store.path, provenance="simulated")) == 1


def test_no_other_provenance_can_be_stored(store: Store, begin) -> None:
    """A prediction is never a launch: the table itself refuses it."""
    put(store, make_launch(begin(store)))
    with connect(store.path, read_only=False) as connection, pytest.raises(Exception, match="CHECK constraint"):
        connection.execute(
            "INSERT INTO launch SELECT * REPLACE ('x' AS launch_id, 9 AS launch_index, 'predicted' AS provenance) FROM launch"
        )


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(st.lists(targets, min_size=10, max_size=20, unique=True))
@example([Target(platform="openvino", engine="openvino"), Target(platform="a", engine="b", device="a", browser="default")])
def test_label_is_that_of_the_target(store: Store, begin, found: list[Target]) -> None:
    """SQL and Python name a target alike."""
    campaign = begin(store)
    put(store, *(make_launch(campaign, 0, Spec(workload=SPEC.workload, target=target)) for target in found))
    labels = {row["target_hash"]: row["label"] for row in queries.launches(store.path, campaign_id=campaign)}
    assert labels == {target.hash: target.label for target in found}


MACHINE = identity({"cpu": "one"})  # of store_launches


def test_filters_and_order(store: Store, begin) -> None:
    """Launches by one value, several values or none; cells from fastest to slowest, without results last."""
    campaign = begin(store)
    specs = [
        Spec(workload=SPEC.workload, target=Target(platform="webgpu", engine="ort", browser=b))
        for b in (None, "firefox", "edge")
    ]
    put(
        store,
        make_launch(campaign, 0, specs[0], samples_ns=(9_000_000,)),
        make_launch(campaign, 0, specs[1], samples_ns=(5_000_000,)),
        make_launch(campaign, 0, specs[2], status="unsupported", samples_ns=(), accuracy=None),
    )
    assert [row["browser"] for row in queries.launches(store.path, browser=None)] == [None]
    assert len(queries.launches(store.path, browser=["firefox", None])) == 2
    assert len(queries.launches(store.path, status="ok", platform="webgpu")) == 2
    assert queries.launches(store.path, browser=[]) == []
    assert [row["spec_hash"] for row in queries.spec_summaries(store.path)] == [specs[1].hash, specs[0].hash, specs[2].hash]
    assert {row["duration_s"] for row in queries.durations(store.path, MACHINE)} == {1.5}
    assert len(queries.durations(store.path, MACHINE)) == 2
    with pytest.raises(UserError, match="Unknown column 'browzer': did you mean browser"):
        queries.launches(store.path, browzer="firefox")


def test_campaigns_and_their_progress(store: Store, begin) -> None:
    """Planned and ended launches, finished or not; resuming finds the latest unfinished campaign of the same request only."""
    first = begin(store, "request", launches=2)
    put(store, make_launch(first, 0), make_launch(first, 1, status="failed"))
    store.finish_campaign(first)
    assert store.resumable_campaign("request") is None
    second = begin(store, "request")
    other = begin(store, "other request")
    spool(make_launch(second, 0), store.spool_folder)  # still in the spool, and counted
    resumable = store.resumable_campaign("request")
    assert resumable and (resumable.id, resumable.done) == (second, {(SPEC.hash, 0)})
    rows = {row["campaign_id"]: row for row in queries.campaigns(store.path)}
    assert list(rows) == [other, second, first]
    assert [rows[first][name] for name in ("status", "launches_planned", "launches_ok", "launches_failed")] == [
        "finished",
        2,
        1,
        1,
    ]
    assert [rows[second][name] for name in ("status", "launches_ok")] == ["unfinished", 1]
    assert queries.campaign(store.path)["campaign_id"] == other
    assert queries.campaign(store.path, first)["plan"] == {"launches": 2}
    with pytest.raises(UserError, match="Unknown campaign"):
        queries.campaign(store.path, first[:-1])


def test_an_empty_store_says_how_to_fill_it(store: Store) -> None:
    """Asking for the latest campaign of a new store."""
    with pytest.raises(UserError, match="has no campaign yet: run 'ipfs-accelerate bench"):
        queries.campaign(store.path)


def test_sql_cannot_write_or_read_files(store: Store, begin, tmp_path: Path) -> None:
    """One read-only statement on the store; each attempt at more is one sentence."""
    put(store, make_launch(begin(store)))
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    local_rows = [1]  # noqa: F841 - a DuckDB connection would find it by its name if it were allowed to
    for sql in (
        "DELETE FROM launch",
        "DROP VIEW launch_summary",
        f"COPY launch TO '{tmp_path}/out.csv'",
        f"FROM read_csv('{secret}')",
        f"FROM '{secret}'",
        f"ATTACH '{tmp_path}/new.duckdb'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "",
        "selec 1",
        "SELECT no_such_column FROM launch",
        "FROM local_rows",
        "SELECT 'x'::INTEGER",
    ):
        with pytest.raises(UserError) as caught:
            queries.run_sql(store.path, sql)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.duckdb", "s.duckdb.lock", "s.duckdb.spool", "secret.csv"]
    columns, rows = queries.run_sql(store.path, "SELECT launch_index, status FROM launch_summary CROSS JOIN range(5)", limit=3)
    assert (columns, rows) == (["launch_index", "status"], [(0, "ok")] * 3)
