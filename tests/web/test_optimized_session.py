"""The web optimisations in real browsers: same numbers with each switch, and each switch does what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from product_model import INPUTS, WEIGHTS, WORKLOAD, require

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.processing.audio import example_waves
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.spec import Workload
from ipfs_accelerate_py.web.audio_front_end import audio_spec
from ipfs_accelerate_py.web.optimized_session import Audio, OptimizedSession, effects, warm_up_report
from ipfs_accelerate_py.web.protocol import ModelProgress
from ipfs_accelerate_py.web.switches import Switches

Prepared = Callable[..., Path]
WorkloadOf = Callable[..., Workload]
ALL = Switches(precompilation=True, gpu_audio=True, parallel_loading=True, readback="woken")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept profiles and digests of these tests go where nothing else is."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))


def session(
    key: str, folder: Path, workload: Workload, switches: Switches, inputs: dict[str, np.ndarray], **more: Any
) -> OptimizedSession:
    """A session on WebGPU unless ``provider`` is given."""
    options = OpenOptions(folder=folder, engine="onnxruntime-web", browser=key, inputs=inputs)
    return OptimizedSession(require(key), more.pop("provider", "webgpu"), workload, options, switches, **more)


def product_session(key: str, folder: Path, switches: Switches, **more: Any) -> OptimizedSession:
    return session(key, folder, WORKLOAD, switches, INPUTS, **more)


def assert_product(outputs: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(outputs["y"], INPUTS["x"] @ WEIGHTS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_pipelines_are_compiled_before_they_are_used(product: Path, key: str):
    """Without weights at first, then from a recording: the first inference finds its pipeline, and the product stays right."""
    with product_session(key, product, ALL) as first:
        report = first.prepare()
        warm_up = warm_up_report(report)
        assert warm_up["before_the_weights"] == warm_up["count"] >= 1
        assert all(pipeline["ms"] > 0 for pipeline in warm_up["pipelines"])
        assert "rehearsed" in report["marks_ms"]
        assert_product(first.first()[1])
        recorded = first.recorded()
    assert recorded
    assert all("@compute" in pipeline.code for pipeline in recorded)
    with product_session(key, product, Switches(precompilation=True), pipelines=recorded) as second:
        report = second.prepare()
        assert len(report["pipelines"]["ahead_ms"]) == warm_up_report(report)["count"] == len(recorded)
        assert "rehearsed" not in report["marks_ms"]
        assert_product(second.first()[1])
        after = second.recorded()
    assert {pipeline.code for pipeline in after} == {pipeline.code for pipeline in recorded}


def test_a_recording_that_no_longer_compiles_costs_nothing(product: Path):
    """Another version's shader in the recording: the engine's own pipelines are made as usual."""
    with product_session("chromium", product, ALL) as first:
        first.prepare()
        first.first()
        broken = [replace(pipeline, code="this is no shader") for pipeline in first.recorded()]
    with product_session("chromium", product, Switches(precompilation=True), pipelines=broken) as second:
        assert second.prepare()["pipelines"]["ahead_ms"] == []
        assert_product(second.first()[1])


def test_all_switches_off_is_the_usual_way(product: Path):
    """Phases one after the other, no chunks, no pipelines before the first inference."""
    with product_session("chromium", product, Switches()) as usual:
        report = usual.prepare()
        marks = report["marks_ms"]
        assert marks["begin"] <= marks["fetched"] <= marks["runtime"] <= marks["compiled"] <= marks["ready"]
        assert report["loading"] is None
        assert report["pipelines"]["made"] == []
        assert_product(usual.first()[1])
        assert len(usual.samples(2)) == 2
        assert effects(report)["profile"] == "fresh"


def test_wasm_loads_in_parallel_too(product: Path):
    """Chunks, digests and the compressed runtime have nothing to do with a GPU."""
    with product_session("chromium", product, Switches(parallel_loading=True), provider="wasm") as loaded:
        progress: list[ModelProgress] = []
        report = loaded.prepare(progress.append)
        total = sum(file.stat().st_size for file in product.glob("model.onnx*"))
        assert report["loading"]["bytes_fetched"] == total
        assert (progress[-1].component, progress[-1].loaded_bytes, progress[-1].total_bytes) == ("model", total, total)
        assert report["pipelines"] is None
        assert_product(loaded.first()[1])


def test_a_device_lost_after_preparing_is_seen(product: Path):
    """A destroyed device is device_lost with every switch on, not a hang."""
    with product_session("chromium", product, ALL) as lost:
        lost.prepare()
        lost.lose_device()
        with pytest.raises(LaunchError) as raised:
            lost.first()
        assert raised.value.error_class == "device_lost"


def audio_of(model_class: str, seconds: float) -> Audio:
    """Two recordings at 44.1 kHz, so that they are resampled in the page."""
    named = model_classes()[model_class]
    spec = audio_spec(model_class, named.config(named.sizes["tiny"].config))
    return Audio(spec, [wave.astype(np.float32) for wave in example_waves(2, seconds, 44_100, 1)], 44_100)


# SwiftShader compiles CLAP's and Whisper's shaders for a minute, so Chromium has the smallest model.
@pytest.mark.parametrize(
    ("key", "model_class", "seconds"),
    [("chromium", "wav2vec2", 0.2), ("firefox", "wav2vec2", 0.2), ("firefox", "whisper", 1.0), ("firefox", "clap", 1.5)],
)
def test_from_recordings_to_outputs(prepared: Prepared, workload_of: WorkloadOf, key: str, model_class: str, seconds: float):
    """Features that never leave the GPU give what Python's processor and the float32 reference give."""
    import onnxruntime

    from ipfs_accelerate_py.models.prepared import Manifest

    folder, workload = prepared(model_class), workload_of(model_class)
    audio = audio_of(model_class, seconds)
    inputs = {name: array for name, array in load_tensors(folder / "inputs.npz").items() if name != audio.spec.input}
    with session(key, folder, workload, ALL, inputs, audio=audio) as on_gpu:
        report = on_gpu.prepare()
        assert report["front_end"] == "gpu"
        found = on_gpu.first()[1]
        again = on_gpu.first()[1]
    for name in found:
        np.testing.assert_array_equal(found[name], again[name])
    with session(key, folder, workload, replace(ALL, gpu_audio=False, parallel_loading=False), inputs, audio=audio) as on_cpu:
        assert on_cpu.prepare()["front_end"] == "cpu"
        expected = on_cpu.first()[1]
    manifest = Manifest.read(folder)
    if "model" in manifest.graphs:  # whisper's decoder loop is checked by the page that uses JavaScript's features
        named = model_classes()[model_class]
        raw = {
            "audio": [(wave, 44_100) for wave in audio.recordings],
            **({"text": ["a", "b"]} if model_class == "clap" else {}),
        }
        features = python_features(model_class, named, raw)
        native = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in native.get_outputs()]
        expected = dict(zip(names, native.run(names, {**inputs, audio.spec.input: features}), strict=True))
    for name, array in expected.items():
        if array.dtype == np.float32:
            assert np.abs(found[name] - array).max() <= 1e-3 * np.abs(array).max()
        else:
            np.testing.assert_array_equal(found[name], array)


def python_features(model_class: str, named: Any, raw: dict[str, Any]) -> np.ndarray:
    """The audio input as Python's own front end makes it."""
    from ipfs_accelerate_py.models import clap, wav2vec2
    from ipfs_accelerate_py.models.processing.audio import chunks, waves_of

    config = named.config(named.sizes["tiny"].config)
    if model_class == "clap":
        settings = clap.front_end(config.audio_config)
        return clap.log_mel(waves_of(raw["audio"], settings["sampling_rate"])[0], settings)
    waves, _ = waves_of(raw["audio"], wav2vec2.SAMPLE_RATE)
    rows = [chunks(wav2vec2.normalised(wave), wav2vec2.input_samples(config), wav2vec2.row_step(config)) for wave in waves]
    return np.concatenate(rows).astype(np.float32)


def test_another_number_of_rows_is_refused(prepared: Prepared, workload_of: WorkloadOf):
    """The graph was prepared for two rows; recordings that make more are refused with both numbers, before anything runs."""
    folder, audio = prepared("whisper"), audio_of("whisper", 2.5)
    with (
        session("chromium", folder, workload_of("whisper"), ALL, {}, audio=audio) as refused,
        pytest.raises(LaunchError, match="make 6 rows, and the model was prepared for a batch of 2"),
    ):
        refused.prepare()


def test_a_second_start_remembers(product: Path):
    """What the first start with precompilation recorded, and which readback it found faster, the second one takes without looking."""
    switches = Switches(precompilation=True, readback="auto")
    with product_session("firefox", product, switches) as first:
        report = first.prepare()
        assert report["pipelines"]["ahead_ms"] == []
        assert len(report["readback"]["plain_ns"]) == 3
        assert_product(first.first()[1])
    with product_session("firefox", product, switches) as second:
        again = second.prepare()
        assert len(again["pipelines"]["ahead_ms"]) >= 1
        assert again["readback"] == {"readback": report["readback"]["readback"], "plain_ns": [], "woken_ns": []}
        assert_product(second.first()[1])


def test_tuning_is_remembered_for_the_adapter():
    """The found variant is kept under the live adapter's own name and the kernel's."""
    from ipfs_accelerate_py.web.remembered import tuned_numbers
    from ipfs_accelerate_py.web.tuning import tune_audio

    spec = audio_of("whisper", 1.0).spec
    found = tune_audio(require("chromium"), spec, seconds=1.0, budget_ms=1)
    assert tuned_numbers(require("chromium")) == {
        f"{found['adapter_key']}|log_mel": found["threads"],
        f"{found['adapter_key']}|log_mel_subgroups": int(found["subgroups"]),
    }
