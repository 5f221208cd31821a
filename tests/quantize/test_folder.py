"""Folders of low-bit weights: exact, resumed after a kill, repaired shard by shard; damaged weights and wrong requests named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize.calibration import windows
from ipfs_accelerate_py.quantize.folder import Progress, Request, quantize_folder, windows_digest
from ipfs_accelerate_py.quantize.sources import Source, open_source
from ipfs_accelerate_py.quantize.stored import MANIFEST, QuantizedFolder

QUERY = "model.layers.1.self_attn.q_proj.weight"


def synthetic() -> Source:
    return open_source(resolve("llama", "tiny", "synthetic"))


def request(source: Source, bits: int = 3, **more: object) -> Request:
    return Request(**{"origin": source.origin, "bits": bits, "group_size": 32, "solver": "rtn", **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama tiny with synthetic weights at 3 bits."""
    folder = tmp_path_factory.mktemp("made") / "m"
    quantize_folder(synthetic(), request(synthetic()), folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "m")
    return tmp_path / "m"


def test_what_is_read_back_is_near_and_vectors_are_equal(made: Path) -> None:
    """Every tensor of the folder against the source's; the stated error is that of what is read."""
    source, folder = synthetic(), QuantizedFolder(made)
    for name, facts in folder.tensors.items():
        original, decoded = source.read(name), folder.read(name)
        error = np.linalg.norm(decoded - original) / np.linalg.norm(original)
        if "bits" in facts:
            assert error == pytest.approx(facts["weight_error"], rel=1e-3)
            assert error < 0.2
        else:
            assert np.array_equal(decoded, original)


def test_bytes_are_those_of_the_files(made: Path) -> None:
    """The manifest's bytes of each tensor are what safetensors itself finds in the shards, filling apart."""
    manifest = json.loads((made / MANIFEST).read_text())
    found: dict[str, int] = {}
    for shard in manifest["shards"]:
        assert (made / shard["file"]).stat().st_size == shard["bytes"]
        with safe_open(made / shard["file"], "numpy") as file:
            for key in file.keys():  # noqa: SIM118 - it is not a dictionary
                if not key.endswith(".filling"):
                    name = key if key in manifest["tensors"] else key.rpartition(".")[0]
                    found[name] = found.get(name, 0) + file.get_tensor(key).nbytes
    assert found == {name: facts["bytes"] for name, facts in manifest["tensors"].items()}
    assert manifest["totals"]["bytes"] == sum(found.values())
    assert manifest["totals"]["bits_per_weight"] == pytest.approx(8 * sum(found.values()) / 202_048)


def test_planes_lie_where_a_browser_can_view_them(made: Path) -> None:
    """Every tensor of a shard starts at a multiple of 8 bytes of the file."""
    data = (made / "layer-000.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    starts = [
        8 + length + entry["data_offsets"][0] for name, entry in header.items() if name[0] != "_" and ".filling" not in name
    ]
    assert len(starts) > 20
    assert all(start % 8 == 0 for start in starts)


def test_a_float_folder_in_shards_is_read_tensor_by_tensor(model_folder: Path, tmp_path: Path) -> None:
    """float16 shards with an index give what transformers' own reader gives; the tokenizer comes along."""
    source = open_source(resolve(str(model_folder)))
    quantize_folder(source, request(source, 8), tmp_path / "m")
    stored = {name: tensor for file in model_folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    folder = QuantizedFolder(tmp_path / "m")
    for name, tensor in stored.items():
        error = torch.from_numpy(folder.read(name)) - tensor.float()
        assert float(error.norm() / tensor.float().norm()) < 0.02
    assert (tmp_path / "m" / "tokenizer.json").read_bytes() == (model_folder / "tokenizer.json").read_bytes()


def test_bfloat16_is_read_exactly(model_folder: Path, tmp_path: Path) -> None:
    """A bfloat16 folder, which NumPy has no type for."""
    shutil.copytree(model_folder, tmp_path / "m")
    expected = {}
    for file in (tmp_path / "m").glob("*.safetensors"):
        tensors = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
        expected |= {name: tensor.float().numpy() for name, tensor in tensors.items()}
        save_file(tensors, file)
    source = open_source(resolve(str(tmp_path / "m")))
    assert all(np.array_equal(source.read(name), values) for name, values in expected.items())


def test_a_killed_run_goes_on_and_ends_the_same(made: Path, tmp_path: Path) -> None:
    """Killed after its second shard, the second run keeps those two files and makes a folder equal to an undisturbed one."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from ipfs_accelerate_py.models.registry import resolve\n"
        "from ipfs_accelerate_py.quantize.folder import Request, quantize_folder\n"
        "from ipfs_accelerate_py.quantize.sources import open_source\n"
        "source = open_source(resolve('llama', 'tiny', 'synthetic'))\n"
        "def stop(step):\n"
        "    if step.name.startswith('model.layers.1.mlp'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "quantize_folder(source, Request(source.origin, 3, 32, 'rtn'), Path(sys.argv[1]), on_progress=stop)\n"
    )
    folder = tmp_path / "m"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert not (folder / MANIFEST).exists()
    with pytest.raises(UserError, match="holds no finished low-bit weights"):
        QuantizedFolder(folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}
    assert sorted(before) == ["embedding.safetensors", "layer-000.safetensors"]
    phases: dict[str, set[str]] = {}

    def heard(step: Progress) -> None:
        phases.setdefault(step.phase, set()).add(step.name)

    assert quantize_folder(synthetic(), request(synthetic()), folder, on_progress=heard) == json.loads(
        (made / MANIFEST).read_text()
    )
    assert all((folder / name).stat().st_mtime_ns == time for name, time in before.items())
    assert "model.embed_tokens.weight" in phases["checking"]
    assert QUERY in phases["quantising"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in made.iterdir())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "is truncated"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "is too long"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), "was altered"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_a_damaged_shard_is_named_and_made_again(copy: Path, damage: object, sentence: str) -> None:
    """Verifying names the shard; the same request makes that one again and leaves the others alone."""
    shard = copy / "layer-001.safetensors"
    whole = shard.read_bytes()
    damage(shard)  # type: ignore[operator]
    with pytest.raises(UserError, match=rf"layer-001\.safetensors' {sentence}"):
        QuantizedFolder(copy).verify()
    times = {file.name: file.stat().st_mtime_ns for file in copy.glob("*.safetensors") if file != shard}
    quantize_folder(synthetic(), request(synthetic()), copy)
    QuantizedFolder(copy).verify()
    assert shard.read_bytes() == whole
    assert times == {name: (copy / name).stat().st_mtime_ns for name in times}


@pytest.mark.parametrize("name", ["../layer-001.safetensors", "/etc/passwd", "a/b.safetensors", "..\\\\b.safetensors"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(copy: Path, name: str) -> None:
    """Of a folder that somebody else made: nothing outside is read."""
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["shards"][1]["file"] = name
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="which is no file of its own folder"):
        QuantizedFolder(copy)


def test_another_request_does_not_overwrite(copy: Path, tmp_path: Path) -> None:
    """Neither a folder of other bits nor one of other files is touched."""
    before = (copy / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="holds the weights of another request"):
        quantize_folder(synthetic(), request(synthetic(), 4), copy)
    assert (copy / MANIFEST).read_bytes() == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(UserError, match="is there already and holds something else"):
        quantize_folder(synthetic(), request(synthetic()), tmp_path / "letters")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_name_the_tensor(model_folder: Path, tmp_path: Path, bad: float) -> None:
    """One NaN or infinity among them."""
    shutil.copytree(model_folder, tmp_path / "m")
    for file in (tmp_path / "m").glob("*.safetensors"):
        tensors = load_file(file)
        if QUERY in tensors:
            tensors[QUERY][2, 5] = bad
            save_file(tensors, file)
    source = open_source(resolve(str(tmp_path / "m")))
    with pytest.raises(UserError, match=rf"Tensor '{QUERY}' has 1 values that are NaN or infinite, the first at \[2, 5\]"):
        quantize_folder(source, request(source), tmp_path / "out")


def test_a_text_lowers_the_error_of_the_outputs(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """gptq on the text loses less of every matrix's outputs on it than rounding weighted by it, under a measured budget too."""
    source = open_source(resolve(str(model_folder)))
    ids = windows(text_file, source.folder, source.config)
    digest = windows_digest(ids)
    errors = {}
    for solver in ("gptq", "rtn"):
        manifest = quantize_folder(source, request(source, solver=solver, windows_sha256=digest), tmp_path / solver, ids)
        errors[solver] = {
            name: facts["output_error"] for name, facts in manifest["tensors"].items() if facts.get("output_error")
        }
    assert len(errors["gptq"]) == 15  # all but the embedding
    assert all(errors["gptq"][name] < error for name, error in errors["rtn"].items())
    phases: list[str] = []
    asked = request(source, budget=5.0, solver="gptq", windows_sha256=digest)
    mixed = quantize_folder(source, asked, tmp_path / "mixed", ids, on_progress=lambda step: phases.append(step.phase))
    assert list(dict.fromkeys(phases)) == ["listening", "measuring", "quantising"]
    assert mixed["plan"]["sensitivity"] == "measured"
    assert mixed["totals"]["bits_per_weight"] <= 5.0
    assert len(set(mixed["plan"]["bits"].values())) > 1


def test_a_calibrated_run_that_is_repaired_ends_the_same(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    """The calibration passes through the quantised layers that are there already."""
    source = open_source(resolve(str(model_folder)))
    ids = windows(text_file, source.folder, source.config)
    asked = request(source, solver="gptq", windows_sha256=windows_digest(ids))
    quantize_folder(source, asked, tmp_path / "m", ids)
    shard = tmp_path / "m" / "layer-001.safetensors"
    before = QuantizedFolder(tmp_path / "m").read(QUERY)
    shard.unlink()
    quantize_folder(source, asked, tmp_path / "m", ids)
    after = QuantizedFolder(tmp_path / "m").read(QUERY)
    assert np.linalg.norm(after - before) < 1e-3 * np.linalg.norm(before)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"solver": "gptq"}, "name one with --text"),
        ({"solver": "hqq", "windows_sha256": "0"}, "hqq uses no text"),
        ({"solver": "gtpq"}, "Unknown solver 'gtpq': did you mean gptq"),
        ({"budget": 3.0}, "above 3"),
    ],
)
def test_requests_that_make_no_sense_are_refused(more: dict[str, object], sentence: str) -> None:
    """Before anything is read."""
    with pytest.raises(UserError, match=sentence):
        request(synthetic(), **more)


def test_texts_that_cannot_calibrate_are_refused(model_folder: Path, tmp_path: Path) -> None:
    """Too short a text, a missing file, a model without a tokenizer."""
    source = open_source(resolve(str(model_folder)))
    (tmp_path / "short.txt").write_text("the weights")
    with pytest.raises(UserError, match=r"has \d+ tokens; calibrating takes at least 512"):
        windows(tmp_path / "short.txt", source.folder, source.config)
    with pytest.raises(UserError, match="cannot be read"):
        windows(tmp_path / "none.txt", source.folder, source.config)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        windows(tmp_path / "short.txt", None, source.config)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written stays; the same request then ends as one that was never stopped."""
    written: list[int] = []
    sync = os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched, pytest.raises(UserError, match=r"The disk is full: .* run the same command again"):
        patched.setattr(os, "fsync", full)
        quantize_folder(synthetic(), request(synthetic()), tmp_path / "m")
    assert not list((tmp_path / "m").glob("*.partial")) and not (tmp_path / "m" / MANIFEST).exists()
    finished = quantize_folder(synthetic(), request(synthetic()), tmp_path / "m")
    assert finished["shards"] == json.loads((made / MANIFEST).read_text())["shards"]
