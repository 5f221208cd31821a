"""Perplexities in a store: what goes in comes out, travels with an export, and keeps its provenance."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.store import migration, queries
from ipfs_accelerate_py.store.connection import connect
from ipfs_accelerate_py.store.exchange import export, import_
from ipfs_accelerate_py.store.quality import OURS, QualityRow, QualitySession, add_quality, qualities
from ipfs_accelerate_py.store.writer import Store

SESSION = {"model": "llama", "origin": "folder:ab", "windows_sha256": "c" * 64, "machine": {"cpu": "one"}}
FLOAT = QualityRow(format="float32", bits_per_weight=32.0, nats=[2.0, 3.0], tokens=20, is_reference=True)
LOW = QualityRow(format="3 bits", bits_per_weight=3.2, nats=[2.1, 3.2], tokens=20, solver="gptq", facts={"bytes": 7})
PEER = QualityRow(format="Q3_K", bits_per_weight=3.4, nats=[2.2, 3.1], tokens=20, made_by="llama.cpp")
CACHE = QualityRow(format="4:2", bits_per_weight=32.0, nats=[2.1, 3.0], tokens=20, bits_per_cached_value=4.0)


def test_every_window_comes_back(store: Store) -> None:
    """Formats that a run adds one by one are one session, with the likelihood of each window as it was measured."""
    session = QualitySession(**SESSION)
    add_quality(store.path, session, [FLOAT])
    add_quality(store.path, session, [LOW, PEER, CACHE])
    found = {row["format"]: row for row in qualities(store.path)}
    assert len({row["session_id"] for row in found.values()}) == len({row["machine_hash"] for row in found.values()}) == 1
    assert found["3 bits"]["nats"] == [2.1, 3.2] and json.loads(found["3 bits"]["facts"]) == {"bytes": 7}
    assert [found[name]["made_by"] for name in ("float32", "3 bits", "Q3_K")] == [OURS, OURS, "llama.cpp"]
    assert [found[name]["bits_per_cached_value"] for name in ("3 bits", "4:2")] == [None, 4.0]
    assert [name for name, row in found.items() if row["is_reference"]] == ["float32"]
    assert queries.launches(store.path) == []


def test_formats_of_one_run_saw_the_same_windows(store: Store) -> None:
    """One with another number of windows or of tokens cannot be paired, and nothing of it is kept."""
    session = QualitySession(**SESSION)
    add_quality(store.path, session, [FLOAT])
    for nats, tokens in (([2.0], 20), ([2.0, 3.0], 21)):
        with pytest.raises(ValueError, match="same windows"):
            add_quality(store.path, session, [QualityRow(format="x", bits_per_weight=2.0, nats=nats, tokens=tokens)])
    assert [row["format"] for row in qualities(store.path)] == ["float32"]


@pytest.mark.parametrize(
    ("changed", "session"),
    [
        ({}, {"provenance": "predicted"}),
        ({"bits_per_weight": 0.0}, {}),
        ({"nats": []}, {}),
        ({"tokens": 0}, {}),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_table(store: Store, changed: dict, session: dict) -> None:
    """A prediction is no measured perplexity; bits, windows and tokens are there."""
    with pytest.raises(duckdb.ConstraintException):
        add_quality(store.path, QualitySession(**SESSION, **session), [QualityRow(**{**vars(LOW), **changed})])
    assert qualities(store.path) == []


@pytest.mark.parametrize("format_", ["parquet", "json"])
def test_perplexities_travel(store: Store, tmp_path: Path, format_: str) -> None:
    """Out of one store and into another, twice: nothing is doubled, no digit and no mark lost. One campaign's export has none."""
    add_quality(store.path, QualitySession(**SESSION), [FLOAT, LOW])
    add_quality(store.path, QualitySession(**SESSION, provenance="simulated"), [FLOAT, PEER])
    source = export(store.path, tmp_path / f"out.{format_}", format_)
    other = tmp_path / "other.duckdb"
    for _ in range(2):
        import_(other, source)
    assert qualities(other) == qualities(store.path)
    assert sorted(row["provenance"] for row in qualities(other)) == ["measured"] * 2 + ["simulated"] * 2
    campaign = store.begin_campaign({"launches": 0}, request_hash="r", command="bench", seed=0)
    alone = tmp_path / "alone.duckdb"
    import_(alone, export(store.path, tmp_path / f"campaign.{format_}", format_, campaign))
    assert qualities(alone) == []


def test_an_export_without_the_table_is_read_if_it_is_older(store: Store, tmp_path: Path) -> None:
    """Schema 5 had no such table; an export of today that lacks it is damaged."""
    file = export(store.path, tmp_path / "all.json", "json")
    content = json.loads(file.read_text())
    del content["tables"]["quality"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="nothing was imported"):
        import_(tmp_path / "other.duckdb", file)
    file.write_text(json.dumps({**content, "schema_version": 5}))
    import_(tmp_path / "other.duckdb", file)
    assert qualities(tmp_path / "other.duckdb") == []


def test_a_store_of_the_schema_before_takes_perplexities(tmp_path: Path) -> None:
    """It is brought up to date by the first row, and keeps what it held."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as connection:
        migration.migrate(connection, version=5)
        connection.execute("INSERT INTO machine VALUES ('m', '{}')")
    add_quality(path, QualitySession(**SESSION), [FLOAT])
    assert len(qualities(path)) == 1
    with connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM machine").fetchall() == [(2,)]
