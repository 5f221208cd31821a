"""Prices that a store keeps, and how the command line speaks of its own options."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from ipfs_accelerate_py.cli import app
from ipfs_accelerate_py.console.options import OPTIONS, spoken, spoken_values
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.recommend.prices import COLUMNS, comparable, table
from ipfs_accelerate_py.recommend.request import Request
from ipfs_accelerate_py.store.prices import stored_prices
from ipfs_accelerate_py.store.writer import Store

HEADER = ",".join(COLUMNS)
runner = CliRunner()


def put(tmp_path, *lines):
    file = tmp_path / "prices.csv"
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    return file


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_prices_are_kept_and_replaced(tmp_path):
    """What was imported is listed with its date and source; the same hardware, currency and day has one price, the newer one."""
    store = tmp_path / "kept.duckdb"
    first = put(tmp_path, "cpu,0.17,EUR,2026-11-01,invoice 12", "H200,3.9,EUR,2026-11-01,quote 4711")
    assert run("prices", "import", first, "--store", store).exit_code == 0
    assert run("prices", "import", put(tmp_path, "cpu,0.2,EUR,2026-11-01,invoice 13"), "--store", store).exit_code == 0
    rows = {row[0]: row for row in stored_prices(store)}
    assert rows["cpu"][1] == 0.2 and rows["cpu"][4] == "invoice 13" and rows["h200"][1] == 3.9 and len(rows) == 2
    listed = run("prices", "list", "--store", store)
    assert listed.exit_code == 0 and "quote 4711" in listed.stdout and "2026-11-01" in listed.stdout


def test_a_bad_row_keeps_nothing(tmp_path):
    """One row without a source: nothing of the file is kept, not even a store."""
    store = tmp_path / "kept.duckdb"
    done = run("prices", "import", put(tmp_path, "cpu,1,EUR,2026-11-01,x", "cuda,1,EUR,2026-11-01,"), "--store", store)
    assert isinstance(done.exception, UserError) and "line 3: source is empty" in str(done.exception)
    assert not store.exists()


def test_a_store_without_prices_says_how_to_add_them(tmp_path):
    """Instead of an empty table; JSON is an empty list."""
    store = tmp_path / "kept.duckdb"
    Store.create_or_open(store)
    listed = run("prices", "list", "--store", store)
    assert listed.exit_code == 0 and "prices import FILE.csv" in listed.stdout
    assert json.loads(run("prices", "list", "--store", store, "--json").stdout) == []


def test_stored_prices_decide_the_cost(tmp_path):
    """The objective cost reads the store's prices without a CSV, and says the price with its date and source; a CSV replaces them."""
    from ipfs_accelerate_py.recommend.select import select_optimal_hardware

    store = tmp_path / "kept.duckdb"
    run("prices", "import", put(tmp_path, "cpu,3.6,EUR,2026-11-01,invoice 12"), "--store", store)
    found = select_optimal_hardware("bert", available_hardware=["cpu"], objective="cost", store=store)
    first = found.primary_recommendation
    assert first.cost_per_million is not None and first.throughput_per_s is not None
    assert first.cost_per_million.value == pytest.approx(1e6 / first.throughput_per_s.value * 3.6 / 3600)
    assert any("3.6 EUR (invoice 12, 2026-11-01)" in line for line in found.explanation)
    other = table(put(tmp_path, "cpu,7.2,EUR,2026-11-02,other"), store)
    assert [price.per_hour for price in other] == [7.2]


def test_two_currencies_are_not_compared(tmp_path):
    """Nothing is converted, so two currencies are a mistake; none at all is one too."""
    with pytest.raises(UserError, match="EUR and USD"):
        comparable(table(put(tmp_path, "cpu,1,EUR,2026-11-01,x", "cuda,1,USD,2026-11-01,x"), None))
    with pytest.raises(UserError, match="prices import FILE"):
        comparable([])


def test_options_are_those_of_the_command(tmp_path):
    """Every name that is replaced is an argument of Python's, and its option is one of the command's."""
    assert set(OPTIONS) <= {field.name for field in fields(Request)}
    help_text = run("recommend", "--help").stdout.replace("\n", " ")
    for option in OPTIONS.values():
        assert option[:14] in help_text


def test_sentences_name_options():
    """Values, quotes and bare names; words of every day and a configuration's own text stay as they are."""
    assert spoken("ask for mode='training', or for gpu_count=1.") == "ask for --mode training, or for --gpu-count 1."
    assert spoken("Nothing meets latency_slo_ms=0.5: the nearest") == "Nothing meets --latency-limit-ms 0.5: the nearest"
    assert spoken("needs gpu_count of 2 in this mode") == "needs --gpu-count of 2 in this mode"
    kept = {"configuration": "batch_size=1", "reason": "batch_size must be 1", "batch_size": 1}
    assert spoken_values(kept) == {"configuration": "batch_size=1", "reason": "--batch-size must be 1", "batch_size": 1}
