"""Probes and predictions in a store: what goes in comes out, leaves with an export, and is never taken for a measured launch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ipfs_accelerate_py.spec import Target
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.exchange import export, import_
from ipfs_accelerate_py.store.observed import add_predictions, add_probe, probes
from ipfs_accelerate_py.store.writer import Store

TARGET = Target(platform="cpu", engine="onnxruntime", device="1 threads")
PREDICTION: dict[str, Any] = {
    "provenance": "predicted",
    "model_version": "1.abc",
    "model": "bert small",
    "platform": "cpu",
    "engine": "torch",
    "device": "default",
    "browser": None,
    "machine_hash": "f" * 16,
    "batch_size": 1,
    "sequence_length": 128,
    "new_tokens": None,
    "precision": "float32",
    "mode": "inference",
    "regime": "new model",
    "latency_ms": 10.0,
    "latency_low_ms": 8.0,
    "latency_high_ms": 12.5,
    "level": 0.9,
    "memory_bytes": 1e8,
    "reasons": ["because"],
}


def rows(value: float) -> list[dict[str, Any]]:
    kinds = (("matmul", 1e6), ("bandwidth", 1e6), ("dispatch", 0.0))
    return [
        {"kind": kind, "precision": "float32", "size": size, "value": value, "samples_ns": [1, 2], "facts": {"rows": 1}}
        for kind, size in kinds
    ]


def test_the_latest_probe_of_a_device_counts(store: Store) -> None:
    """An older run stays in the store, and its rows are not mixed with the newer one's."""
    for value in (1e9, 2e9):
        add_probe(store.path, TARGET, {"cpu": "one"}, {"python": "3"}, rows(value))
    found = probes(store.path)
    ((key, latest),) = found.items()
    assert key.endswith("|cpu|onnxruntime|1 threads|")
    assert [row["value"] for row in latest] == [2e9] * 3
    assert queries.run_sql(store.path, "SELECT count(*) FROM probe")[1] == [(6,)]


def test_a_prediction_is_no_launch(store: Store) -> None:
    """It is in no view of launches, and the table takes no other provenance."""
    add_predictions(store.path, [PREDICTION])
    assert queries.launches(store.path) == [] and queries.spec_summaries(store.path) == []
    assert queries.run_sql(store.path, "SELECT provenance, reasons FROM prediction")[1] == [("predicted", ["because"])]
    with pytest.raises(ValueError, match="no prediction"):
        add_predictions(store.path, [PREDICTION | {"provenance": "measured"}])
    with duckdb.connect(str(store.path)) as connection, pytest.raises(duckdb.ConstraintException):
        connection.execute("UPDATE prediction SET provenance = 'measured'")


@pytest.mark.parametrize("format_", ["parquet", "json"])
def test_probes_and_predictions_travel(store: Store, tmp_path: Path, format_: str) -> None:
    """Out of one store and into another, twice: nothing is doubled."""
    add_probe(store.path, TARGET, {"cpu": "one"}, {"python": "3"}, rows(3e9))
    add_predictions(store.path, [PREDICTION])
    source = export(store.path, tmp_path / f"out.{format_}", format_)
    other = tmp_path / "other.duckdb"
    for _ in range(2):
        import_(other, source)
    assert probes(other) == probes(store.path)
    assert queries.run_sql(other, "SELECT model, provenance FROM prediction")[1] == [("bert small", "predicted")]


def test_an_export_from_before_there_were_probes_is_still_read(tmp_path: Path) -> None:
    """The shipped reference measurements are of the schema before."""
    from ipfs_accelerate_py.paths import reference_folders

    store = tmp_path / "s.duckdb"
    assert import_(store, reference_folders()[0]).added > 0
    assert probes(store) == {}


def test_absurd_rates_are_kept_as_they_were_measured(store: Store) -> None:
    """The store judges nothing; whoever reads the rates does."""
    add_probe(store.path, TARGET, {"cpu": "one"}, {"python": "3"}, rows(math.inf))
    assert {row["value"] for row in next(iter(probes(store.path).values()))} == {math.inf}
