"""Calibration: what times say, by hand; and real probes of this machine's engines, whose rates are bounded by what is possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms.base import Unavailable
from ipfs_accelerate_py.predict.ceilings import from_probe
from ipfs_accelerate_py.predict.probes import calibrate as calibration
from ipfs_accelerate_py.predict.probes import timing
from ipfs_accelerate_py.predict.probes.onnx_folder import write
from ipfs_accelerate_py.predict.probes.plan import EMPTY, Chain, evaluate
from ipfs_accelerate_py.spec import Target
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.observed import probes

SMALL = (EMPTY, Chain("dispatch", 1, 16, 33), Chain("matmul", 64, 256, 4), Chain("bandwidth", 1, 512, 2))


def test_what_times_say_by_hand() -> None:
    """A run of 1 ms with nothing in it; 33 products in 1.32 ms; 4 products of 64 x 256 x 256 in 2 ms; 2 MB of weights in 3 ms."""
    times = dict(zip(SMALL, ([1_000_000] * 5, [1_320_000] * 5, [2_000_000, 9_000_000], [3_000_000]), strict=True))
    found = {row["kind"]: row for row in evaluate(times)}
    assert found["execution"]["value"] == pytest.approx(1e-3)
    assert found["dispatch"]["value"] == pytest.approx(1e-5)
    assert found["matmul"]["value"] == pytest.approx(4 * 2 * 64 * 256 * 256 / 1e-3)
    assert (found["bandwidth"]["size"], found["bandwidth"]["value"]) == (
        2 * 512 * 512 * 4,
        pytest.approx(2 * 512 * 512 * 4 / 2e-3),
    )


def test_a_chain_that_costs_nothing_says_nothing() -> None:
    """No rate is made of a difference of 0 or less."""
    times = {EMPTY: [1_000_000], SMALL[2]: [1_000_000], SMALL[3]: [900_000]}
    assert [row["kind"] for row in evaluate(times)] == ["execution"]


def test_copies_are_rates_that_ceilings_keep() -> None:
    """Both ways between two buffers of this machine's memory: rates that memory can have, which the ceilings of a probe have too."""
    torch = pytest.importorskip("torch")
    rows = timing.copies(torch, "cpu", 2**22)
    assert [row["kind"] for row in rows] == ["copy_to_device", "copy_from_device"]
    assert all(
        1e7 < row["value"] < 1e12 and row["value"] == pytest.approx(2**22 / (min(row["samples_ns"]) * 1e-9)) for row in rows
    )
    others = [{"kind": kind, "precision": "float32", "size": 1e6, "value": 1e9} for kind in ("matmul", "bandwidth")]
    found = from_probe([*others, *rows], "x")
    assert found is not None and (found.copy_to_device, found.copy_from_device) == (rows[0]["value"], rows[1]["value"])


def test_a_chain_is_the_product_of_its_weights(tmp_path: Path) -> None:
    """onnxruntime on the written folder gives what NumPy gives."""
    onnxruntime = pytest.importorskip("onnxruntime")
    chain = Chain("matmul", 8, 32, 3)
    given = write(chain, tmp_path)["x"]
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": given})
    expected = given
    for weights in chain.weights():
        expected = expected @ weights
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "engine"), [("cpu", "torch"), ("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_native_engines_are_probed_and_stored(
    platform: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: rates above 0 and below what any processor reaches, stored as measured, and enough to predict with."""
    pytest.importorskip(engine)
    monkeypatch.setattr(calibration, "CHAINS", SMALL)
    store = tmp_path / "s.duckdb"
    (found,) = calibration.calibrate(store, platforms=[platform], engines=[engine], threads=1)
    assert found.target == Target(platform=platform, engine=engine, device="1 threads")
    ((key, rows),) = probes(store).items()
    assert key.endswith(f"|{platform}|{engine}|1 threads|")
    ceilings = from_probe(rows, key)
    assert ceilings is not None
    assert 1e7 < ceilings.flops_per_s("float32", 1e6) < 1e13
    assert 1e6 < ceilings.bytes_per_s(1e6) < 1e13
    columns, values = queries.run_sql(store, "SELECT DISTINCT provenance FROM probe")
    assert values == [("measured",)], columns


def test_a_browser_is_probed_by_the_same_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """wasm in the first browser that is here, through the page: two chains, each in a fresh profile."""
    from ipfs_accelerate_py.predict.probes.timing import graph_times
    from ipfs_accelerate_py.web.browsers import find_browsers

    pytest.importorskip("onnx")
    here = [key for key, browser in find_browsers().items() if not isinstance(browser, Unavailable)]
    if not here:
        pytest.skip("no browser is installed: ipfs-accelerate browsers --install")
    target = Target(platform="wasm", engine="onnxruntime-web", browser=here[0])
    times, facts = graph_times(target, (EMPTY, Chain("matmul", 64, 256, 8)))
    rows = {row["kind"]: row["value"] for row in evaluate(times)}
    assert rows["execution"] > 0 and 1e7 < rows["matmul"] < 1e13
    assert facts["provider"] == "wasm"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"platforms": ["gpu"]}, "Unknown platform 'gpu'"),
        ({"threads": 0}, "The number of threads must be at least 1, not 0."),
        (
            {"platforms": ["cpu"], "engines": ["tensorflow"]},
            "Nothing could be probed. No engine or browser of that name is here.",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """One sentence each, and no rows."""
    with pytest.raises(UserError, match=sentence):
        calibration.calibrate(tmp_path / "s.duckdb", **arguments)
    assert probes(tmp_path / "s.duckdb") == {} if (tmp_path / "s.duckdb").exists() else True


def test_a_platform_that_is_not_here_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As unavailable, because ...; and where nothing else was asked for, as the error."""
    monkeypatch.setattr(calibration, "probe", lambda name: Unavailable("There is no such device.", "Buy one."))
    with pytest.raises(UserError, match=r"There is no such device\. Buy one\."):
        calibration.calibrate(tmp_path / "s.duckdb", platforms=["cuda"])


def command(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "IPFS_ACCELERATE_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "ipfs_accelerate_py.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_predict_from_the_command_line(tmp_path: Path) -> None:
    """JSON with interval, regime and provenance; saved rows are predictions; mistakes are one sentence and status 2."""
    store = tmp_path / "s.duckdb"
    done = command("predict", "bert-base-uncased", "--platform", "cpu", "--json", "--save", str(store), cache=tmp_path)
    found = json.loads(done.stdout)
    assert (done.returncode, found["provenance"], found["regime"]) == (0, "predicted", "new model")
    assert found["latency_ms"]["low"] < found["latency_ms"]["value"] < found["latency_ms"]["high"]
    assert queries.run_sql(store, "SELECT model, provenance FROM prediction")[1] == [("bert-base-uncased", "predicted")]
    for arguments, sentence in (
        (("bert-bsae",), "Unknown model 'bert-bsae': did you mean"),
        (("bert", "--platform", "mps"), "Nothing is known of mps"),
        ((), "Name a model"),
        (("bert", "--store", str(tmp_path / "none.duckdb")), "There is no store at"),
    ):
        wrong = command("predict", *arguments, cache=tmp_path)
        assert wrong.returncode == 2 and sentence in wrong.stderr and "Traceback" not in wrong.stderr


def test_predictions_are_told_as_people_read_them(tmp_path: Path) -> None:
    """Machines by name, software adapters marked, times without exponents; a name of a datasheet asks for its platform."""
    told = command("predict", "bert", cache=tmp_path).stdout.splitlines()
    assert any("cuda" in line and "(NVIDIA H200)" in line for line in told)
    assert not any("e+0" in line or "69b99d3261421639" in line for line in told)
    assert all(("software adapter" in line) == ("webgpu" in line and "Xeon" in line) for line in told)
    named = command("predict", "bert", "--platform", "cuda", "--machine", "h200", cache=tmp_path).stdout
    assert "(NVIDIA H200), float32, measured:" in named
    wrong = command("predict", "bert", "--machine", "NVIDIA A100", cache=tmp_path)
    assert wrong.returncode == 2 and "say with which platform, for example --platform cuda" in wrong.stderr


def test_an_empty_store_leaves_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning from an empty store is learning from what is shipped; without that, it is refused."""
    from ipfs_accelerate_py.predict import Predictor
    from ipfs_accelerate_py.predict.fitted import shipped
    from ipfs_accelerate_py.store.writer import Store

    store = Store.create_or_open(tmp_path / "s.duckdb").path
    alone = command("predict", "bert", "--platform", "cpu", "--store", str(store), "--no-reference", cache=tmp_path)
    assert alone.returncode == 2 and "holds no measured launch and no probe to learn from" in alone.stderr
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))
    assert Predictor.from_stores([store]).version == shipped().version


def test_absurd_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    """Medians of 0 and of two hours, and a failed output check, in a store of otherwise good rows; the command says how many."""
    from ipfs_accelerate_py.paths import reference_folders
    from ipfs_accelerate_py.predict.observations import read
    from ipfs_accelerate_py.store.exchange import export, import_

    whole, store = tmp_path / "whole.duckdb", tmp_path / "s.duckdb"
    import_(whole, next(folder for folder in reference_folders() if folder.name == "two-cores-without-gpu"))
    good = len(read([whole]).observations)
    _, cells = queries.run_sql(whole, "SELECT spec_hash FROM spec_summary WHERE launches_ok > 0 ORDER BY 1 LIMIT 3")
    content = json.loads(export(whole, tmp_path / "whole.json", "json").read_text())
    absurd = {cells[0][0]: [0], cells[1][0]: [7_200_000_000_000]}
    tables = content["tables"]
    for launch in tables["launch"]:
        launch["samples_ns"] = absurd.get(launch["spec_hash"], launch["samples_ns"])
    wrong = {launch["launch_id"] for launch in tables["launch"] if launch["spec_hash"] == cells[2][0]}
    for row in tables["accuracy"]:
        row["passed"] = row["passed"] and row["launch_id"] not in wrong
    (tmp_path / "absurd.json").write_text(json.dumps(content))
    import_(store, tmp_path / "absurd.json")
    evidence = read([store])
    assert len(evidence.observations) == good - 3
    assert sorted(evidence.left_out.values()) == [1, 2]
    told = command("predict", "bert", "--platform", "cpu", "--store", str(store), cache=tmp_path)
    assert (
        told.returncode == 0 and "2 measured cells or probes were left out: their times are not numbers above 0" in told.stderr
    )
