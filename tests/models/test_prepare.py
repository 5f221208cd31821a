"""Prepared folders: what is in them, and that they are made once, whole, and by several processes at a time."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ipfs_accelerate_py.measure.accuracy import check
from ipfs_accelerate_py.models import export
from ipfs_accelerate_py.models.prepare import ERROR_LIMITS, _float32_model, load_model, modules, prepare
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.reference import reference_rows
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.models.synthetic import synthetic_model

Prepared = Callable[..., Path]
CLASSES = ("bert", "vit", "whisper", "llama")
PRECISIONS = tuple(ERROR_LIMITS)  # that are exported


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_manifest_is_true(prepared: Prepared, name: str, precision: str) -> None:
    """Files, digests, sizes, types and errors in the manifest are those of the files."""
    folder = prepared(name, precision=precision)
    manifest = Manifest.read(folder)
    assert (manifest.model_class, manifest.origin, manifest.precision) == (name, "synthetic:0", precision)
    for key, graph in manifest.graphs.items():
        paths = [folder / file for file in graph.files]
        assert graph.sha256 == tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
        assert graph.bytes == sum(path.stat().st_size for path in paths)
        assert manifest.facts["export_error"][key] < ERROR_LIMITS[precision]
        session = onnxruntime.InferenceSession(paths[0], providers=["CPUExecutionProvider"])
        stated = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in graph.inputs}
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int32)": "int32"}
        assert stated == {value.name: (kinds[value.type], value.shape) for value in session.get_inputs()}
    assert manifest.parameters == sum(parameter.numel() for parameter in load_model(folder).parameters())
    if manifest.generation:
        assert manifest.generation.cache_dtype == ("float16" if precision == "float16" else "float32")


@pytest.mark.parametrize("name", CLASSES)
def test_lower_precision_is_lower(prepared: Prepared, name: str) -> None:
    """float16 and int8 weigh less and differ a little, so they are not float32 under another name."""
    folders = {precision: prepared(name, precision=precision) for precision in PRECISIONS}
    manifests = {precision: Manifest.read(folder) for precision, folder in folders.items()}
    errors = {precision: max(manifest.facts["export_error"].values()) for precision, manifest in manifests.items()}
    print(name, errors)
    assert errors["float32"] < 1e-5 < errors["float16"] < errors["int8"]
    assert manifests["float16"].weights_bytes < 0.75 * manifests["float32"].weights_bytes
    assert manifests["int8"].weights_bytes < manifests["float32"].weights_bytes
    graph = next(iter(manifests["int8"].graphs.values()))
    types = {tensor.data_type for tensor in onnx.load(folders["int8"] / graph.files[0]).graph.initializer}
    assert onnx.TensorProto.INT8 in types


@pytest.mark.parametrize("name", CLASSES)
def test_modules_give_the_reference(prepared: Prepared, name: str) -> None:
    """What the torch engine gets gives the stored reference, on the stored inputs, from the stored weights."""
    folder = prepared(name)
    reference = load_tensors(folder / "reference.npz")
    graphs = modules(folder)
    assert set(graphs) == set(Manifest.read(folder).graphs)
    if "model" in graphs:
        graph = graphs["model"]
        with torch.no_grad():
            output = graph.module(*(torch.from_numpy(array) for array in graph.inputs.values()))
        np.testing.assert_allclose(output.numpy(), reference[graph.outputs[0]], atol=1e-6)
    else:
        assert reference["token_ids"].shape == (2, 6)
        np.testing.assert_array_equal(reference["logits"].argmax(-1), reference["token_ids"][:, 0])


def test_a_second_prepare_makes_nothing(prepared: Prepared, workload_of: Callable[..., object]) -> None:
    """The same workload gives the same folder, untouched."""
    folder = prepared("vit")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = prepare(workload_of("vit"), resolve("vit", "tiny", "synthetic"), folder.parent.parent)  # type: ignore[arg-type]
    assert again == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_batch_sizes_share_the_large_files(tmp_path: Path) -> None:
    """Only inputs and reference are new; graphs and weights are links to one file."""
    reference = resolve("vit", "tiny")
    first, second = (prepare(workload(reference, batch_size=size), reference, tmp_path) for size in (1, 3))
    assert first != second
    assert (first / "model.onnx").stat().st_ino == (second / "model.onnx").stat().st_ino
    assert load_tensors(second / "inputs.npz")["pixel_values"].shape[0] == 3
    assert Manifest.read(second).dimensions == {"batch": 3}
    other_seed = prepare(workload(reference), reference, tmp_path, seed=1)
    assert not np.array_equal(
        load_tensors(first / "inputs.npz")["pixel_values"], load_tensors(other_seed / "inputs.npz")["pixel_values"]
    )


def _prepare_vit(cache: str) -> str:
    reference = resolve("vit", "tiny")
    return str(prepare(workload(reference), reference, Path(cache)))


def test_two_processes_at_a_time(tmp_path: Path) -> None:
    """Both get the same whole folder, and nothing half-made stays behind."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(_prepare_vit, [str(tmp_path)] * 2)
    assert folders[0] == folders[1]
    assert Manifest.read(Path(folders[0])).graphs["model"].bytes == (Path(folders[0]) / "model.onnx").stat().st_size
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_a_failed_prepare_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is off is refused, and the next attempt starts afresh."""
    reference = resolve("vit", "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(export, "error", lambda path, graph: float("nan"))
        with pytest.raises(ArithmeticError, match="float32 graph 'model' of vit tiny is off by nan"):
            prepare(workload(reference), reference, tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []
    assert list((tmp_path / "graphs").iterdir()) == []
    assert prepare(workload(reference), reference, tmp_path).is_dir()


def test_a_changed_shape_is_prepared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same name of class and size: neither the reference nor the graphs of the old shape are taken for the new one's."""
    reference = resolve("bert", "tiny")
    made = {prepare(workload(reference), reference, tmp_path)}
    sizes = model_classes()["bert"].sizes
    monkeypatch.setitem(sizes, "tiny", replace(sizes["tiny"], config={**sizes["tiny"].config, "num_hidden_layers": 1}))
    _float32_model.cache_clear()  # as in another process
    made.add(prepare(workload(reference), reference, tmp_path))
    assert len({Manifest.read(folder).parameters for folder in made}) == len({hash_of(folder) for folder in made}) == 2


def hash_of(folder: Path) -> str:
    return hashlib.sha256((folder / "reference.npz").read_bytes()).hexdigest()


def test_heavy_weights_go_into_files_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit lowered: several data files, each listed, and the graph still runs (float32 and converted)."""
    monkeypatch.setattr(export, "SHARD_BYTES", 100_000)
    reference = resolve("vit", "tiny")
    for precision in PRECISIONS:
        folder = prepare(workload(reference, precision=precision), reference, tmp_path)
        graph = Manifest.read(folder).graphs["model"]
        assert len(graph.files) > 1
        assert all((folder / name).stat().st_size <= 100_000 for name in graph.files)
        inputs = load_tensors(folder / "inputs.npz")
        logits = onnxruntime.InferenceSession(folder / graph.files[0]).run(["logits"], inputs)[0]
        found = check({"logits": logits}, load_tensors(folder / "reference.npz"), precision, "image-classification")
        assert found.passed, found.rule


def test_graphs_do_not_tell_where_they_were_made(prepared: Prepared) -> None:
    """No path of this machine in the file."""
    content = (prepared("llama") / "decoder.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_a_local_folder_is_prepared_from_its_own_weights(tmp_path: Path) -> None:
    """The reference of a folder is that model's output, and its weights stay where they are."""
    vit = model_classes()["vit"]
    source = tmp_path / "mine"
    synthetic_model(vit, vit.sizes["tiny"].config, seed=7).save_pretrained(source)
    reference = resolve(str(source))
    folder = prepare(workload(reference), reference, tmp_path / "cache")
    assert Manifest.read(folder).facts["torch_folder"] == str(source)
    synthetic = resolve("vit", "tiny")
    other = prepare(workload(synthetic), synthetic, tmp_path / "cache")
    ours, theirs = (load_tensors(path / "reference.npz")["logits"] for path in (folder, other))
    assert np.abs(ours - theirs).max() > 0.1


@pytest.mark.parametrize("name", CLASSES)
def test_without_export_there_are_no_graph_files(tmp_path: Path, prepared: Prepared, name: str) -> None:
    """Torch's manifest names the same inputs as the exported one, and the folder has the same reference; both are kept apart."""
    reference = resolve(name, "tiny")
    work = workload(reference, batch_size=2, sequence_length=16, new_tokens=6)
    plain = prepare(work, reference, tmp_path, exported=False)
    assert sorted(path.name for path in plain.iterdir()) == ["inputs.npz", "manifest.json", "reference.npz"]
    exported = Manifest.read(prepared(name))
    manifest = Manifest.read(plain)
    assert (manifest.parameters, manifest.dimensions) == (exported.parameters, exported.dimensions)
    assert list(manifest.graphs) == list(exported.graphs)
    for key, graph in manifest.graphs.items():
        assert graph.files == ()
        assert {(info.name, info.dtype, info.shape) for info in graph.inputs} >= {
            (info.name, info.dtype, info.shape) for info in exported.graphs[key].inputs
        }
    ours, theirs = (load_tensors(folder / "reference.npz") for folder in (plain, prepared(name)))
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert prepare(work, reference, tmp_path) != plain


def test_precisions_share_one_reference(tmp_path: Path) -> None:
    """The float32 reference of the same model and inputs is computed once, whatever is compared with it."""
    reference = resolve("vit", "tiny")
    folders = [prepare(workload(reference, precision=p), reference, tmp_path, exported=False) for p in ("float32", "bfloat16")]
    assert folders[0] != folders[1]
    assert len(list((tmp_path / "references").iterdir())) == 1
    assert len({hash_of(folder) for folder in folders}) == 1
    assert Manifest.read(folders[1]).weights_bytes * 2 == Manifest.read(folders[0]).weights_bytes


def test_a_dear_reference_is_of_the_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take long is limited to the first items, which is stated, and these are right."""
    reference = resolve("llama", "tiny")
    work = workload(reference, batch_size=4, sequence_length=8, new_tokens=3)
    whole = prepare(work, reference, tmp_path / "whole", exported=False)
    monkeypatch.setattr("ipfs_accelerate_py.models.reference.MOST_FLOPS", 1.0)
    steps: list[str] = []
    first = prepare(work, reference, tmp_path / "first", exported=False, tell=steps.append)
    assert Manifest.read(whole).reference_rows is None
    assert Manifest.read(first).reference_rows == 1
    assert steps == ["float32 reference of 1 of 4 items (about 0 s)"]
    ours, theirs = (load_tensors(folder / "reference.npz") for folder in (first, whole))
    np.testing.assert_array_equal(ours["token_ids"], theirs["token_ids"][:1])
    np.testing.assert_allclose(ours["logits"], theirs["logits"][:1], atol=1e-5)
    assert load_tensors(first / "inputs.npz")["input_ids"].shape == (4, 8)


def test_the_estimate_grows_with_the_work() -> None:
    """Seven billion parameters and 128 tokens are 1.8e12 operations: one item, some seconds; training costs three times that."""
    ids = np.zeros((8, 128), np.int64)
    rows, seconds = reference_rows({"input_ids": ids, "attention_mask": ids}, None, 7_000_000_000, "inference")
    assert rows == 1
    assert seconds == pytest.approx(2 * 7e9 * 128 / 0.5e12)
    rows, seconds = reference_rows({"input_ids": ids}, None, 7_000_000_000, "training")
    assert rows == 2
    assert seconds == pytest.approx(2 * 6 * 7e9 * 128 / 0.5e12)
    assert reference_rows({"pixel_values": np.zeros((32, 3, 224, 224), np.float32)}, None, 86_000_000, "inference")[0] is None


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    """Inputs, weights, graphs and reference are reproducible to the byte on one machine."""
    reference = resolve("vit", "tiny")
    folders = [prepare(workload(reference), reference, tmp_path / name) for name in ("a", "b")]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert manifests[0] == manifests[1]
    for name in ("inputs.npz", "reference.npz"):
        first, second = (load_tensors(folder / name) for folder in folders)
        assert all(np.array_equal(first[key], second[key]) for key in first)
