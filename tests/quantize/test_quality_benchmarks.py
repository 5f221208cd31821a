"""The two benchmarks of quality write what they print to a store, from which the dashboard draws it."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ipfs_accelerate_py.report.dashboard.views import read
from ipfs_accelerate_py.store.quality import qualities

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


def test_formats_are_kept_window_by_window(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The JSON of the run and the store have the same likelihoods; the view pairs them as the printed table does."""
    store, output = tmp_path / "s.duckdb", tmp_path / "out.json"
    run(
        "quantization_quality",
        monkeypatch,
        *(str(model_folder), "--held-out", str(text_file), "--windows", "3", "--only", "^[23] bits, rtn"),
        *("--store", str(store), "--output", str(output)),
    )
    told = json.loads(output.read_text())["nats_by_window"]
    kept = {row["format"]: row for row in qualities(store)}
    assert set(kept) == {"float32", "2 bits, rtn", "3 bits, rtn"}
    assert kept["float32"]["nats"] == told["float"]
    assert all(kept[name]["nats"] == told[name] and kept[name]["solver"] == "rtn" for name in ("2 bits, rtn", "3 bits, rtn"))
    assert all(row["origin"].startswith("folder:") and row["made_by"] == "ipfs_accelerate_py" for row in kept.values())
    drawn = {row["precision"]: row for row in read(store, "quality")["rows"]}
    lost = np.subtract(told["2 bits, rtn"], told["float"])
    half = 4.30265 * lost.std(ddof=1) / math.sqrt(3)
    assert drawn["2 bits, rtn"]["perplexity_ratio_high"] == pytest.approx(math.exp(lost.mean() + half), rel=1e-5)


def test_widths_of_the_cache_are_kept_with_their_bits(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value costs its bits and one, for the step and the least value of each 32; what is float says nothing of cached bits."""
    store = tmp_path / "s.duckdb"
    run(
        "kv_cache_context",
        monkeypatch,
        *(str(model_folder), "--held-out", str(text_file), "--length", "128", "--recent", "32", "--windows", "2"),
        *("--widths", "4:2", "8:8", "--store", str(store)),
    )
    kept = {row["format"]: row for row in qualities(store)}
    assert set(kept) == {"float32", "cache of 4 and 2 bits", "cache of 8 and 8 bits"}
    config = json.loads((model_folder / "config.json").read_text())
    head = config["hidden_size"] // config["num_attention_heads"]
    padded = math.ceil(head / 32) * 32 / head  # values are padded to whole groups of 32 channels
    for name, keys, values in (("cache of 4 and 2 bits", 4, 2), ("cache of 8 and 8 bits", 8, 8)):
        assert kept[name]["bits_per_cached_value"] == pytest.approx((keys + 1 + padded * (values + 1)) / 2)
    assert {row["tokens"] for row in kept.values()} == {2 * 64} and {row["bits_per_weight"] for row in kept.values()} == {32.0}
