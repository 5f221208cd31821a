"""UnifiedWebPlatform in real browsers: every model class from what a person gives to what a person reads, against torch."""

from __future__ import annotations

import io
import itertools
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from product_model import require

from ipfs_accelerate_py.models.reference import reference_outputs
from ipfs_accelerate_py.models.registry import SYNTHETIC_SEED, model_classes
from ipfs_accelerate_py.models.synthetic import synthetic_model
from ipfs_accelerate_py.web.configuration_rules import PRECISION_BITS
from ipfs_accelerate_py.web.errors import ConfigurationError, ModelError
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.served_model import Progress
from ipfs_accelerate_py.web.web_model import types_of

NEW_TOKENS = 4
PIXELS = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
TONE = np.sin(np.arange(8000) / 7).astype(np.float32) / 2


def as_png() -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(out, "png")
    return out.getvalue()


def as_wav(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((TONE * 32767).astype("<i2").tobytes())
    return path


RAW: dict[str, dict[str, Any]] = {
    "text": {"text": "The ferry leaves at seven."},
    "image": {"image": PIL.Image.fromarray(PIXELS)},
    "audio": {"audio": (TONE, 16_000)},
    "video": {"video": [PIXELS] * 4},
}


def raw_of(name: str) -> dict[str, Any]:
    return {key: value for kind in model_classes()[name].raw_inputs for key, value in RAW[kind].items()}


@pytest.fixture(scope="module")
def page() -> Iterator[UnifiedWebPlatform]:
    """One browser for the tests of this module that do not break it."""
    require("chromium")
    with UnifiedWebPlatform("bert", "text", "wasm", "chromium", configuration=TINY) as platform:
        yield platform


TINY = {"size": "tiny", "weights": "synthetic", "max_new_tokens": NEW_TOKENS}


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_every_class_gives_what_torch_gives(name: str, page: UnifiedWebPlatform):
    """All 13 classes, several of them open in one page: the result is torch's on the same inputs, in the form of the contract."""
    kind = model_classes()[name]
    with page.open_beside(name, types_of(kind)[-1], platform="wasm", configuration=TINY) as platform:
        answer = platform.run_inference(raw_of(name))
        preprocessed = platform.model.preprocess(raw_of(name))
        model = synthetic_model(kind, kind.sizes["tiny"].config, SYNTHETIC_SEED)
        graphs = kind.graphs(model, preprocessed.arrays, NEW_TOKENS)
        expected = platform.model.postprocess(reference_outputs(graphs, NEW_TOKENS), preprocessed)
    assert answer["success"] is True
    assert_same(answer["result"], expected)
    assert answer["metadata"]["weights"] == "synthetic"
    assert answer["metadata"]["provenance"] == "measured"
    assert (answer["metadata"]["platform"], answer["metadata"]["browser"]) == ("wasm", "chromium")
    assert answer["metadata"]["browser_version"] == require("chromium").version
    performance = answer["performance"]
    assert 0 < performance["inference_ms"] < performance["total_ms"]
    assert (performance["tokens_per_second"] is not None) == platform.model.generates


def assert_same(found: Any, expected: Any) -> None:
    """Numbers to a thousandth, everything else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float | np.ndarray | np.floating):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("key", "provider"),
    [("firefox", "wasm"), ("chromium", "webgpu"), ("chromium-headless-shell", "webnn"), ("webkitgtk", "wasm")],
)
def test_other_browsers_and_engines_give_the_same(key: str, provider: str, page: UnifiedWebPlatform):
    """One text in each engine, and tokens of a decoder whose shapes change: equal to the first browser's wasm."""
    require(key)
    texts = {"text": ["short", "a somewhat longer text than that"]}
    expected = page.run_inference(texts)["result"]["embeddings"]
    with page.open_beside("llama", "text", platform="wasm", configuration=TINY) as decoder:
        tokens = decoder.run_inference({"text": "once upon"})["result"]["token_ids"]
    with UnifiedWebPlatform("bert", "text", provider, key, configuration=TINY) as platform:
        answer = platform.run_inference(texts)
        np.testing.assert_allclose(answer["result"]["embeddings"], expected, rtol=1e-3, atol=1e-4)
        assert answer["metadata"]["degradations"] == []
        assert (answer["metadata"]["platform"], answer["metadata"]["browser"]) == (provider, key)
        with platform.open_beside("llama", "text", platform=provider, configuration=TINY) as other:
            for _ in range(2):
                assert other.run_inference({"text": "once upon"})["result"]["token_ids"] == tokens


def test_inputs_come_as_a_person_has_them(page: UnifiedWebPlatform, tmp_path: Path):
    """A path, bytes, a Pillow image and an array are one picture; a wav file and its samples are one recording."""
    (tmp_path / "picture.png").write_bytes(as_png())
    with page.open_beside("vit", "vision", platform="wasm", configuration=TINY) as vit:
        forms = [PIXELS, PIL.Image.fromarray(PIXELS), as_png(), str(tmp_path / "picture.png"), tmp_path / "picture.png"]
        results = [vit.run_inference({"image": form})["result"]["classifications"] for form in forms]
        batch = vit.run_inference({"image": forms})["result"]["classifications"]
    assert all(result == results[0] for result in results)
    assert [item[0]["label"] for item in batch] == [results[0][0][0]["label"]] * len(forms)
    with page.open_beside("wav2vec2", "audio", platform="wasm", configuration=TINY) as speech:
        path = as_wav(tmp_path / "tone.wav")
        heard = [speech.run_inference({"audio": form})["result"] for form in (path, path.read_bytes(), (TONE, 16_000))]
    assert heard[0] == heard[1] == heard[2]


def test_a_batch_is_taken_in_passes_of_its_size(page: UnifiedWebPlatform):
    """batch_size 2 and five texts: three passes, the rows as of one."""
    texts = [f"text number {number} of {'x' * number}" for number in range(5)]
    whole = page.run_inference({"text": texts})["result"]["embeddings"]
    with page.open_beside("bert", "text", platform="wasm", configuration={**TINY, "batch_size": 2}) as platform:
        before = page._host.live.page.bridge.traffic.messages_sent
        parts = platform.run_inference({"text": texts})["result"]["embeddings"]
        assert page._host.live.page.bridge.traffic.messages_sent - before == 4  # one to open the model
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)


def test_tokens_come_one_by_one_and_a_closed_stream_stops(page: UnifiedWebPlatform):
    """The stream's tokens are those of the whole answer; leaving it ends the generation in the page, and the next request works."""
    with page.open_beside("llama", "text", platform="wasm", configuration=TINY) as platform:
        whole = platform.run_inference({"text": "once"}, max_new_tokens=12)["result"]
        tokens = list(platform.stream({"text": "once"}, max_new_tokens=12))
        assert [token.token_id for token in tokens] == whole["token_ids"][0]
        assert [token.index for token in tokens] == list(range(12))
        assert all(one.ms < other.ms for one, other in itertools.pairwise(tokens))
        received = page._host.live.page.bridge.traffic
        stream = platform.stream({"text": "once"}, max_new_tokens=200)
        next(stream)
        before = received.messages_received
        stream.close()
        platform.run_inference({"text": "again"}, max_new_tokens=1)
        assert received.messages_received - before < 150  # of 200 tokens most were never made


def test_progress_is_told_by_component(page: UnifiedWebPlatform):
    """Both graphs of whisper are fetched, checked and compiled, and the bytes add up."""
    seen: list[Progress] = []
    with page.open_beside("whisper", "audio", platform="wasm", configuration=TINY) as platform:
        loading = platform.load(seen.append)
    for component in ("encoder", "decoder"):
        mine = [progress for progress in seen if progress.component == component]
        assert [phase for phase in ("fetch", "verify", "compile") if phase in {progress.phase for progress in mine}] == [
            "fetch",
            "verify",
            "compile",
        ]
        assert mine[-1].loaded_bytes == mine[-1].total_bytes > 0
    assert loading["bytes"] == sum(
        {progress.component: progress.total_bytes for progress in seen if progress.phase == "compile"}.values()
    )


def test_simulation_is_marked_and_starts_no_browser(page: UnifiedWebPlatform, tmp_path: Path):
    """Asked for by name only: the same numbers, no browser, and every place that has a number says simulated."""
    with UnifiedWebPlatform("bert", "text", "wasm", web_api_mode="simulation", configuration=TINY) as platform:
        answer = platform.run_inference({"text": "hello"})
        metrics = platform.get_performance_metrics()
        for told in (
            platform.load(),
            platform.warm_up(),
            platform.describe(),
            json.loads(platform.write_trace(tmp_path / "trace").read_text())["otherData"],
        ):
            assert told["provenance"] == "simulated"
        assert platform.get_browser_compatibility()["provenance"] == "simulated"
    assert answer["metadata"]["provenance"] == answer["performance"]["provenance"] == metrics["provenance"] == "simulated"
    assert answer["metadata"]["browser_version"] is None
    expected = page.run_inference({"text": "hello"})["result"]["embeddings"]
    np.testing.assert_allclose(answer["result"]["embeddings"], expected, rtol=1e-3, atol=1e-4)
    with UnifiedWebPlatform("llama", "text", web_api_mode="simulation", configuration=TINY) as decoder:
        tokens = list(decoder.stream({"text": "once upon"}))
        assert {token.provenance for token in tokens} == {"simulated"}
        assert [token.token_id for token in tokens] == decoder.run_inference({"text": "once upon"})["result"]["token_ids"][0]


def test_the_published_name_resolves_and_says_that_its_weights_are_synthetic():
    """``bert-base-uncased`` is bert base; without trained weights at hand nothing pretends to be trained."""
    platform = UnifiedWebPlatform(model_name="bert-base-uncased", model_type="text", platform="webgpu", auto_detect=True)
    reference = platform.model.reference
    assert (reference.model_class, reference.size, reference.weights) == ("bert", "base", "synthetic")


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model_type": "vision"}, ConfigurationError, "its model_type is text, not vision"),
    ({"model_type": "smell"}, ConfigurationError, "Unknown model_type 'smell'"),
    ({"platform": "cuda"}, ConfigurationError, "platform is webgpu, webnn, wasm or auto, not 'cuda'"),
    ({"browser": "netscape"}, ConfigurationError, "Unknown browser 'netscape'"),
    ({"model_name": "bert-base-uncasd"}, ModelError, "did you mean bert-base-uncased"),
    ({"model_name": "./nowhere"}, ModelError, "no folder"),
    ({"web_api_mode": "pretend"}, ConfigurationError, "web_api_mode is real or simulation"),
    ({"timeout_s": 0}, ConfigurationError, "timeout_s is a number of seconds above 0"),
    ({"precision": "high"}, ConfigurationError, f"number of bits \\({', '.join(map(str, PRECISION_BITS))}\\)"),
    ({"recovery": "hope"}, ConfigurationError, "error_recovery is auto, fallback, retry or abort"),
    ({"configuration": {"batchsize": 3}}, ConfigurationError, "Did you mean batch_size"),
]


@pytest.mark.parametrize(("options", "kind", "sentence"), BAD)
def test_what_cannot_be_is_told_before_a_browser_starts(
    options: dict[str, Any], kind: type[Exception], sentence: str, monkeypatch
):
    """One sentence, from the constructor."""
    monkeypatch.setattr("ipfs_accelerate_py.web.host.Page", None)
    with pytest.raises(kind, match=sentence):
        UnifiedWebPlatform(**{"model_name": "bert", "model_type": "text", "configuration": TINY, **options})


@pytest.mark.parametrize(
    ("name", "inputs", "sentence"),
    [
        ("bert", {"text": ""}, "empty"),
        ("bert", {"text": []}, "batch of text is empty"),
        ("bert", {"image": PIXELS}, "Unknown input of bert 'image'"),
        ("bert", {}, "text is missing"),
        ("bert", "text", "Inputs are a dictionary"),
        ("bert", {"text": 5}, "is a int, not a string"),
        ("vit", {"image": b"no picture"}, "image"),
        ("vit", {"image": np.zeros((4, 4, 3), np.float64)}, "uint8"),
        ("wav2vec2", {"audio": (np.array([0.1, np.nan] * 800, np.float32), 16_000)}, "not numbers|not finite"),
    ],
)
def test_inputs_that_cannot_be_used_are_told_before_a_browser_starts(name: str, inputs: Any, sentence: str, monkeypatch):
    """A ModelError with the sentence of what is wrong; no browser was started for it."""
    monkeypatch.setattr("ipfs_accelerate_py.web.host.Page", None)
    platform = UnifiedWebPlatform(name, types_of(model_classes()[name])[0], "wasm", configuration=TINY)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=sentence):
        platform.run_inference(inputs)
    assert platform._host.starts == 0


def test_only_generating_models_stream_and_one_input_at_a_time(page: UnifiedWebPlatform):
    """Both refusals come from the call, before anything runs."""
    with pytest.raises(ModelError, match="bert models do not generate"):
        page.stream({"text": "x"})
    with (
        page.open_beside("llama", "text", platform="wasm", configuration=TINY) as platform,
        pytest.raises(ModelError, match="one input at a time"),
    ):
        platform.stream({"text": ["a", "b"]})


def test_more_tokens_than_the_context_are_cut_with_a_note(page: UnifiedWebPlatform):
    """context_length holds prompt and new tokens; a prompt that fills it is refused."""
    with page.open_beside("llama", "text", platform="wasm", configuration={**TINY, "context_length": 10}) as platform:
        answer = platform.run_inference({"text": "abcde"}, max_new_tokens=50)
        prompt = platform.model.preprocess({"text": "abcde"}).arrays["input_ids"].shape[1]
        assert len(answer["result"]["token_ids"][0]) == 10 - prompt
        assert any("fit the context of 10" in note for note in answer["metadata"]["notes"])
        with pytest.raises(ModelError, match="leaves none to generate"):
            platform.run_inference({"text": "a prompt that is longer"})


def test_the_published_import_names_are_the_package_s_own():
    """``fixed_web_platform`` adds nothing: what it names is what ``ipfs_accelerate_py.web`` has."""
    from fixed_web_platform import unified_framework

    assert unified_framework.UnifiedWebPlatform is UnifiedWebPlatform
    assert unified_framework.ModelError is ModelError
    assert all(hasattr(unified_framework, name) for name in unified_framework.__all__)
