"""``compare --by`` and ``history`` as a person meets them, on the shipped measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ipfs_accelerate_py.cli import app
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.paths import reference_folders
from ipfs_accelerate_py.store.exchange import import_


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference measurements of two cores."""
    path = tmp_path_factory.mktemp("store") / "s.duckdb"
    import_(path, next(folder for folder in reference_folders() if folder.name == "two-cores-without-gpu"))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_targets_are_compared_as_one_family(store: Path) -> None:
    """bert on processors and WebNN: OpenVINO against torch is decided, and every pair says what it is about."""
    found = json.loads(run("compare", "bert small float32", "--by", "target", "--store", str(store), "--json").stdout)
    verdicts = {(pair["a"], pair["b"]): pair for pair in found["pairs"]}
    assert found["provenance"] == "measured"
    assert verdicts["cpu · torch · default", "openvino · openvino · default"]["verdict"] == "slower"
    family = [pair for pair in found["pairs"] if pair["adjusted_p"] is not None]
    assert family and all(pair["adjusted_p"] >= pair["p_value"] for pair in family)
    told = run("compare", "bert wasm", "--by", "browser", "--store", str(store)).stdout
    assert "chromium is" in told and "against firefox" in told and "Benjamini-Hochberg" in told


def test_a_cell_that_did_not_change_has_one_level(store: Path) -> None:
    """Two campaigns of the reference measured it, minutes apart."""
    told = run("history", "vit cpu torch", "--store", str(store)).stdout
    assert "vit/small" in told and "2 campaigns" in told and "nothing says that it changed" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compare", "bert"), "Give a second cell to compare with, or --by"),
        (("compare", "bert", "vit", "--by", "browser"), "Give a second cell or --by, not both"),
        (("compare", "bert", "--by", "colour"), "Unknown thing to compare by 'colour'"),
        (("compare", "nothing such", "--by", "browser"), "No measured cell of .* has all the words of 'nothing such'"),
        (("history", "bert"), "'bert' fits"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments: tuple[str, ...], sentence: str, store: Path) -> None:
    """With what would do."""
    with pytest.raises(UserError, match=sentence):
        raise run(*arguments, "--store", str(store)).exception or AssertionError("it was accepted")
