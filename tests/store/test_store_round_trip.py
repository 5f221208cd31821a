"""What goes into the store comes out of it, through the spool and through every export that can be read again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from store_launches import make_launch
from strategies import launch_records

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.record import LaunchRecord, uuid7
from ipfs_accelerate_py.spec import canonical_json
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.exchange import export, import_
from ipfs_accelerate_py.store.migration import SCHEMA_VERSION
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store

CAMPAIGN = "01a20000-0000-7000-8000-000000000000"
several = st.lists(launch_records(CAMPAIGN), min_size=1, max_size=5, unique_by=lambda r: (r.spec.hash, r.launch_index))
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])


def put(store: Store, records: list[LaunchRecord]) -> list[LaunchRecord]:
    """Spool and ingest the records as a new campaign of the store; they get its id, and ids of their own."""
    campaign = store.begin_campaign({"launches": len(records)}, request_hash="r", command="bench 'x'", seed=-1)
    records = [replace(record, campaign_id=campaign, launch_id=uuid7()) for record in records]
    for record in records:
        spool(record, store.spool_folder)
    ingested = store.ingest()
    assert (ingested.added, ingested.set_aside) == (len(records), ())
    return records


def by_id(records: list[LaunchRecord]) -> dict[str, str]:
    """As JSON, since a cosine may be not-a-number, which is not equal to itself."""
    return {record.launch_id: canonical_json(asdict(record)) for record in records}


@few
@given(several)
def test_record_survives_spool_and_store(store: Store, records: list[LaunchRecord]) -> None:
    """Every field of any launch, hostile text and empty lists included, is read back as it was."""
    records = put(store, records)
    assert by_id(queries.records(store.path, records[0].campaign_id)) == by_id(records)


@pytest.mark.parametrize("format_", ["parquet", "json"])
@settings(few, max_examples=4)
@given(several)
def test_export_and_import_give_the_same_store(store: Store, tmp_path: Path, format_: str, records: list[LaunchRecord]) -> None:
    """An imported export holds equal records and campaigns; importing it again changes nothing."""
    records = put(store, records)
    campaign = records[0].campaign_id
    store.finish_campaign(campaign)
    source = export(store.path, tmp_path / f"out'side {campaign}", format_, campaign)
    other = tmp_path / "other.duckdb"
    assert str(import_(other, source)) == f"{len(records)} new launches of {len(records)} read"
    assert import_(other, source).added == 0
    assert by_id(queries.records(other, campaign)) == by_id(records)
    assert queries.campaign(other, campaign) == queries.campaign(store.path, campaign)
    assert queries.campaign(other, campaign)["plan"] == {"launches": len(records)}


def test_not_finite_facts_become_text(store: Store, begin) -> None:
    """Strict JSON has no NaN: the store says so in words, and a lone surrogate becomes a question mark."""
    record = make_launch(begin(store), facts={"load": float("nan"), "x": [float("inf")]}, error_message="bad \ud800 text")
    spool(record, store.spool_folder)
    store.ingest()
    (found,) = queries.records(store.path)
    assert found.facts == {"load": "nan", "x": ["inf"]}
    assert found.error_message == "bad ? text"


def test_export_of_one_campaign_leaves_out_the_others(store: Store, begin, tmp_path: Path) -> None:
    """Only the launches of the campaign that was named, and what they need, are exported."""
    first, second = begin(store), begin(store)
    spool(make_launch(first, machine={"cpu": "first"}), store.spool_folder)
    spool(make_launch(second, machine={"cpu": "second"}), store.spool_folder)
    store.ingest()
    for format_ in ("parquet", "json"):
        other = tmp_path / f"{format_}.duckdb"
        import_(other, export(store.path, tmp_path / format_, format_, second))
        assert [record.machine for record in queries.records(other)] == [{"cpu": "second"}]
        assert [row["campaign_id"] for row in queries.campaigns(other)] == [second]
    assert queries.run_sql(other, "SELECT count(*) FROM machine")[1] == [(1,)]


def test_csv_is_flat_and_keeps_the_provenance(store: Store, begin, tmp_path: Path) -> None:
    """CSV has a summary per launch with its provenance, and says why it cannot be imported."""
    spool(make_launch(begin(store), provenance="simulated"), store.spool_folder)
    store.ingest()
    folder = export(store.path, tmp_path / "csv", "csv")
    header, line = (folder / "launch_summary.csv").read_text().splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["provenance"] == "simulated"
    with pytest.raises(UserError, match="parquet or json"):
        import_(tmp_path / "other.duckdb", folder)


def test_export_overwrites_nothing(store: Store, tmp_path: Path) -> None:
    """A destination that exists is left as it is."""
    there = tmp_path / "there"
    there.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(store.path, there, "json")
    assert there.read_text() == "mine"
    with pytest.raises(UserError, match=r"Unknown format 'parket'.*parquet"):
        export(store.path, tmp_path / "x", "parket")
    with pytest.raises(UserError, match="Unknown campaign"):
        export(store.path, tmp_path / "x", "json", "no-such")
    assert not (tmp_path / "x").exists()


def _without_a_column(content: dict) -> None:
    del content["tables"]["launch"][0]["samples_ns"]


def _predicted(content: dict) -> None:
    content["tables"]["launch"][0]["provenance"] = "predicted"


def _without_its_machine(content: dict) -> None:
    content["tables"]["machine"] = []


def _wrong_type(content: dict) -> None:
    content["tables"]["launch"][0]["samples_ns"] = "many"


def _without_a_table(content: dict) -> None:
    del content["tables"]["accuracy"]


def _newer(content: dict) -> None:
    content["schema_version"] = 99


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_without_a_column, "launch has other columns.*samples_ns"),
        (_predicted, "nothing was imported.*provenance"),
        (_without_its_machine, "nothing was imported.*machine_hash"),
        (_wrong_type, "nothing was imported"),
        (_without_a_table, "nothing was imported.*accuracy"),
        (_newer, f"schema 99, newer than this program's {SCHEMA_VERSION}"),
    ],
)
def test_a_spoilt_import_is_refused_whole(store: Store, begin, tmp_path: Path, spoil, sentence: str) -> None:
    """What does not fit the schema is named, and nothing of it is stored."""
    spool(make_launch(begin(store)), store.spool_folder)
    store.ingest()
    file = export(store.path, tmp_path / "store.json", "json")
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    other = Store.create_or_open(tmp_path / "other.duckdb")
    with pytest.raises(UserError, match=sentence):
        import_(other.path, file)
    assert queries.records(other.path) == []


def test_import_of_something_else_says_so(tmp_path: Path) -> None:
    """A folder that is no export, a missing file and a text file are told apart from an export."""
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "list.json").write_text("[1]")
    for source in (tmp_path, tmp_path / "missing", tmp_path / "text.json", tmp_path / "list.json"):
        with pytest.raises(UserError, match="is not what 'export' writes"):
            import_(tmp_path / "s.duckdb", source)


def test_spooling_needs_no_database() -> None:
    """A launch's process must not pay for loading DuckDB."""
    code = "import sys; import ipfs_accelerate_py.store.spool; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_export_holds_samples_as_integers(store: Store, begin, tmp_path: Path) -> None:
    """Other tools read the samples as 64-bit integers from Parquet, beyond the 2^53 of a double."""
    import pyarrow.parquet as pq

    samples = (2**62, 2**53 + 1)
    spool(make_launch(begin(store), samples_ns=samples), store.spool_folder)
    store.ingest()
    table = pq.read_table(export(store.path, tmp_path / "out") / "launch.parquet")
    assert np.array_equal(table["samples_ns"][0].as_py(), samples)
