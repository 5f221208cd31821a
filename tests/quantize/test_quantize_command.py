"""``ipfs-accelerate quantize`` as a person meets it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipfs_accelerate_py.store.quality import qualities


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipfs_accelerate_py.cli", "quantize", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def test_a_folder_with_a_text_and_its_quality(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """The table, the perplexity before and after, and the check of what was made."""
    done = run(
        *(str(model_folder), "--bits", "3", "--group-size", "32", "--text", str(text_file)),
        *("--evaluate", str(text_file), "--output", str(tmp_path / "m"), "--store", str(tmp_path / "s.duckdb")),
    )
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())  # without the breaks of the lines
    assert "gptq" in shown
    assert "73.5 % less than float16 (404,096 bytes)" in shown
    assert "of outputs on the text given" in shown
    told = re.search(r"Perplexity ([\d.]+) with float weights, ([\d.]+) with these", shown)
    assert told
    kept = {row["is_reference"]: row for row in qualities(tmp_path / "s.duckdb")}
    assert [math.exp(sum(kept[which]["nats"]) / len(kept[which]["nats"])) for which in (True, False)] == pytest.approx(
        [float(value) for value in told.groups()], rel=1e-3
    )
    assert (kept[False]["format"], kept[False]["solver"]) == ("3 bits, groups of 32, gptq", "gptq")
    assert kept[False]["bits_per_weight"] == pytest.approx(4.243, abs=1e-3) and kept[False]["provenance"] == "measured"
    checked = run(str(tmp_path / "m"), "--check")
    assert checked.stdout == f"{tmp_path / 'm'}: all 4 shards are whole; 4.243 bits a weight.\n"


def test_json_is_for_programs(tmp_path: Path) -> None:
    """One JSON object on standard output, with every matrix's bits and errors."""
    done = run(
        "llama",
        "--size",
        "tiny",
        "--weights",
        "synthetic",
        "--bits",
        "4",
        "--group-size",
        "32",
        "--json",
        "--output",
        str(tmp_path / "m"),
    )
    shown = json.loads(done.stdout)
    assert shown["request"]["solver"] == "rtn"
    assert shown["tensors"]["lm_head.weight"]["bits"] == 4
    assert 0.05 < shown["tensors"]["lm_head.weight"]["weight_error"] < 0.1
    assert shown["quality"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["llama", "--bits", "5"], "Weights can have 2, 3, 4 or 8 bits, not 5."),
        (["vit", "--weights", "synthetic"], "low-bit weights are made for decoders of type llama, qwen2, mistral"),
        (["llama", "--weights", "synthetic", "--text", "none.txt"], "has no tokenizer.json"),
        (["llama", "--size", "7b", "--weights", "synthetic", "--bits", "2", "--budget", "2.1"], "take 2.193 of this model"),
        (["llama", "--size", "small", "--weights", "synthetic", "--bits", "2", "--budget", "default"], "name a larger budget"),
        (["llama", "--weights", "synthetic", "--budget", "little"], "'little' is neither"),
        (["llama", "--weights", "synthetic", "--store", "s.duckdb"], "name a text to measure them on with --evaluate"),
        (["llama", "--weights", "synthetic", "--device", "cuda:77"], "torch has no device 'cuda:77' here"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(words: list[str], sentence: str, tmp_path: Path) -> None:
    """No traceback, and no folder is left behind."""
    done = run(*words, "--output", str(tmp_path / "m"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


def test_without_a_folder_nothing_is_done() -> None:
    """The output has no default: a model can be large."""
    done = run("llama", "--weights", "synthetic")
    assert (done.returncode, done.stderr) == (2, "ipfs-accelerate: Where to? Name a folder with --output.\n")
