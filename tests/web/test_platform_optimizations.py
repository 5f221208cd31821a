"""UnifiedWebPlatform's optimisations in real browsers: the same answers with each, and each does what its report says."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from product_model import require

from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.errors import ConfigurationError, HardwareError
from ipfs_accelerate_py.web.page_session import Page
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.profiles import kept_profile
from ipfs_accelerate_py.web.remembered import recorded_pipelines

TINY = {"size": "tiny", "weights": "synthetic", "max_new_tokens": 4}
TEXT = {"text": "the ferry leaves at seven"}
TONE = (np.sin(np.arange(8000) / 7).astype(np.float32) / 2, 16_000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts remember and keep is this test's own."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))


def open_platform(
    key: str, provider: str, name: str = "bert", model_type: str = "text", **configuration: Any
) -> UnifiedWebPlatform:
    require(key)
    recovery = configuration.pop("recovery", None)
    return UnifiedWebPlatform(
        name,
        model_type,
        provider,
        key,
        configuration={**TINY, **configuration},
        recovery=recovery,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_a_model_is_sent_once_to_a_kept_profile(key: str):
    """The second start asks the server for none of the model's files, by the server's own count, and the answer is the same."""
    answers = []
    for start in range(2):
        with open_platform(key, "wasm", keep_profile=True) as platform:
            answers.append(platform.run_inference(TEXT)["result"]["embeddings"])
            metrics = platform.get_performance_metrics()
        loading, sent = metrics["loading"], metrics["bridge"]["model_requests"]
        kept = metrics["feature_usage"]["optimizations"]["keep"]
        came = (loading["bytes_fetched"], loading["bytes_from_cache"])
        if start == 0:
            assert (came, kept["in_this_start"]["profile"]) == ((loading["bytes"], 0), "kept, first start")
            assert sent > 0
        else:
            assert (came, kept["in_this_start"]["profile"]) == ((0, loading["bytes"]), "kept, started before")
            assert sent == 0
    np.testing.assert_array_equal(*answers)


def test_a_kept_profile_in_use_is_told():
    """Two browsers cannot share one: the second is refused with the remedy, and nothing of it stays."""
    with open_platform("chromium", "wasm", keep_profile=True) as platform:
        with (
            kept_profile(require("chromium"), platform.model.profile_name),
            pytest.raises(ConfigurationError, match="in use by process"),
        ):
            platform.load()
        assert platform.run_inference(TEXT)["success"]


def test_pipelines_of_the_first_start_are_compiled_ahead_at_the_second():
    """The first start warms up by a pass and records; the second compiles what was recorded, without a pass, and says so."""
    answers = []
    for start in range(2):
        with open_platform("firefox", "webgpu") as platform:
            platform.load()
            usage = platform.get_feature_usage()["optimizations"]["precompilation"]
            assert usage["on"] is True
            assert usage["measured_effect"] == "not measured here"
            ahead = usage["in_this_start"]
            assert (ahead is not None and ahead["pipelines_ahead"] > 0 and ahead["ahead_ms"] > 0) == (start == 1)
            made = platform.get_performance_metrics()["shaders"]["count"]
            answers.append(platform.run_inference(TEXT)["result"]["embeddings"])
            if start == 1:
                recorded = len(recorded_pipelines(platform.runner.opened.served._pipeline_key))  # type: ignore[union-attr, attr-defined]
                assert (
                    made == ahead["pipelines_ahead"] == recorded
                )  # nothing but the recording was compiled, and no pass was run
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-4)


def test_every_switch_gives_the_same_answer_and_its_report():
    """All off against all on in Firefox: equal to rounding; the reports say what was asked for and what happened."""
    off = {"use_shader_precompilation": False, "enable_parallel_loading": False, "readback": "plain"}
    with open_platform("firefox", "webgpu", **off) as platform:
        expected = platform.run_inference(TEXT)["result"]["embeddings"]
        usage = platform.get_feature_usage()
        told = usage["optimizations"]
        assert not usage["shader_precompilation"] and not usage["parallel_loading"]
        assert told["parallel_loading"]["in_this_start"] is None
        assert told["readback"]["in_this_start"] == {"used": "plain", "plain_ns": [], "woken_ns": []}
        assert told["parallel_loading"]["because"] == "asked for by enable_parallel_loading"
    with open_platform("firefox", "webgpu", readback="woken") as platform:
        answer = platform.run_inference(TEXT)
        np.testing.assert_allclose(answer["result"]["embeddings"], expected, rtol=1e-3, atol=1e-4)
        told = platform.get_feature_usage()["optimizations"]
        assert told["readback"]["in_this_start"]["used"] == "woken"
        assert (
            told["parallel_loading"]["in_this_start"]["bytes_fetched"] == platform.get_performance_metrics()["loading"]["bytes"]
        )
    with open_platform("firefox", "webgpu", use_shader_precompilation=False) as platform:
        platform.load()
        trial = platform.get_feature_usage()["optimizations"]["readback"]["in_this_start"]
        assert len(trial["plain_ns"]) == len(trial["woken_ns"]) == 3


@pytest.mark.parametrize(("name", "model_type"), [("whisper", "audio"), ("clap", "audio")])
def test_features_made_on_the_gpu_give_the_same(name: str, model_type: str):
    """Recordings of several lengths, one longer than a row: the page's features in place of Python's; after the device is lost, wasm gets
    Python's again."""
    waves = [TONE, (TONE[0][:3000], 16_000), (np.tile(TONE[0], 3), 16_000)]
    raw: dict[str, Any] = {"audio": waves, **({"text": ["a", "b", "c"]} if name == "clap" else {})}
    with open_platform("firefox", "wasm", name, model_type) as platform:
        expected = platform.run_inference(raw)["result"]
        assert platform.get_feature_usage()["audio_front_end"] == "Python"
    asked = {"use_compute_shaders": True, "use_shader_precompilation": False, "recovery": "fallback", "batch_size": 2}
    with open_platform("firefox", "webgpu", name, model_type, **asked) as platform:
        for _ in range(1 if name == "whisper" else 2):  # the first request is preprocessed before the page is known
            answer = platform.run_inference(raw)
            assert_close(answer["result"], expected)
            assert platform.get_feature_usage()["audio_front_end"] == "GPU"
        if name == "whisper":
            return
        platform.runner.opened.served.lose_device()  # type: ignore[union-attr, attr-defined]
        answer = platform.run_inference(raw)
        assert_close(answer["result"], expected)
        assert answer["metadata"]["platform"] == "wasm"


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    if "token_ids" in expected:
        assert found["token_ids"] == expected["token_ids"]
        return
    for kind, array in expected["embeddings"].items():
        np.testing.assert_allclose(found["embeddings"][kind], array, rtol=1e-2, atol=2e-3)


def lose_in_first_pass(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first inference that a page is asked for loses its device while it runs; what was harmed."""
    ask: Callable[..., Any] = Page.ask
    harmed: list[str] = []

    def asking(page: Page, message: Any, kind: Any, phase: str, *rest: Any, **named: Any) -> Any:
        if isinstance(message, protocol.Infer) and not harmed:
            send = page.bridge._send

            async def sending(socket: Any, frame: Any) -> None:
                await send(socket, frame)
                if not harmed:  # right behind the request: the page has begun the pass when this comes
                    harmed.append(message.model)
                    page.bridge.post(protocol.LoseModelDevice(model=message.model))

            monkeypatch.setattr(page.bridge, "_send", sending)
        return ask(page, message, kind, phase, *rest, **named)

    monkeypatch.setattr(Page, "ask", asking)
    return harmed


def test_a_device_lost_in_warm_up_is_recovered(monkeypatch: pytest.MonkeyPatch):
    """``load`` warms up on a new device in a new browser, and says why; the answers are right."""
    harmed = lose_in_first_pass(monkeypatch)
    with open_platform("chromium", "webgpu") as platform:
        platform.load()
        assert harmed
        (step,) = platform.describe()["degradations"]
        assert (step["action"], step["after"]) == ("retry", 1)
        assert "lost" in step["because"]
        found = platform.run_inference(TEXT)["result"]["embeddings"]
        assert platform.get_performance_metrics()["failures"] == {"device_lost": 1}
        assert platform._host.starts == 2  # type: ignore[union-attr]
    with open_platform("chromium", "wasm") as wasm:
        np.testing.assert_allclose(found, wasm.run_inference(TEXT)["result"]["embeddings"], rtol=1e-3, atol=1e-4)


def test_a_device_lost_in_warm_up_without_recovery_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    """``abort``: one sentence that names the lost device, with a remedy; no hang, and the browser is gone."""
    lose_in_first_pass(monkeypatch)
    with open_platform("chromium", "webgpu", recovery="abort") as platform:
        with pytest.raises(HardwareError, match="device was lost") as raised:
            platform.load()
        assert "platform='wasm'" in " ".join(raised.value.recovery_actions)
        assert platform._host.live is None  # type: ignore[union-attr]  # nothing of it is trusted again


def test_the_language_model_engine_is_sent_once_and_times_its_kernels():
    """Of a kept profile's second start the server sees no request for weights. Chromium tells its page's heap; kernels are timed by the
    GPU's clock where the adapter has one, and the answer afterwards is the same."""
    asked = {"precision": 4, "context_length": 64, "adapter": "software", "keep_profile": True}
    with open_platform("chromium", "webgpu", "llama", **asked) as platform:
        tokens = platform.run_inference(TEXT)["result"]["token_ids"]
        metrics = platform.get_performance_metrics()
        assert metrics["bridge"]["model_requests"] > 0
        assert "profile_kernels" in metrics["kernels"]["reason"]
    with open_platform("chromium", "webgpu", "llama", **asked, use_shader_precompilation=False) as platform:
        assert platform.run_inference(TEXT)["result"]["token_ids"] == tokens
        timed = platform.profile_kernels(32)
        has_clock = "timestamp-query" in platform.get_browser_compatibility()["webgpu"]["features"]
        assert (timed["step"] is not None) == has_clock
        metrics = platform.get_performance_metrics()
        assert metrics["bridge"]["model_requests"] == 0
        assert metrics["kernels"] == timed
        assert metrics["memory"]["js_heap_bytes"] > 1e5
        text = urllib.request.urlopen(platform.serve_metrics(), timeout=60).read().decode()
        assert "ipfs_accelerate_web_js_heap_bytes{" in text
        if has_clock:
            assert all(part["ms"] > 0 and part["dispatches"] > 0 for part in timed["step"])
            assert sum(part["bytes"] or 0 for part in timed["step"]) > 0
            assert text.count("ipfs_accelerate_web_kernel_seconds{") == len({part["label"] for part in timed["step"]})
        else:
            assert "timestamp-query" in timed["reason"]
        assert platform.run_inference(TEXT)["result"]["token_ids"] == tokens  # its cache was emptied, not broken


def test_where_nothing_can_be_timed_the_reason_is_told():
    """Firefox has no heap to tell, onnxruntime-web no kernels, wasm neither shaders nor a readback."""
    with open_platform("firefox", "wasm") as platform:
        platform.load()
        metrics = platform.get_performance_metrics()
    assert metrics["memory"]["js_heap_bytes"] is None
    assert "measureUserAgentSpecificMemory" in metrics["memory"]["js_heap_reason"]
    assert "wasm" in metrics["kernels"]["reason"]
    told = metrics["feature_usage"]["optimizations"]
    assert told["readback"]["on"] == "plain"
    assert "wasm compiles no shaders" in told["precompilation"]["because"]


def test_a_file_that_vanished_is_told_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Chunks need the file itself: without it the sentence names it."""
    with open_platform("chromium", "wasm", recovery="abort") as platform:
        folder, graphs = platform.model.graphs("float32", lambda step: None)
        shutil.copytree(folder, tmp_path / "model")
        (tmp_path / "model" / graphs["model"].files[0]).unlink()
        monkeypatch.setattr(type(platform.model), "graphs", lambda *_: (tmp_path / "model", graphs))
        with pytest.raises(Exception, match=r"model\.onnx could not be read: there is no such file"):
            platform.load()


def test_sleeping_threads_of_wasm_keep_the_heap_from_being_measured():
    """With one thread Chromium measures its heap; with two it cannot, and the reason is told each time."""
    with open_platform("chromium", "wasm", threads=1) as platform:
        platform.load()
        assert platform.get_performance_metrics()["memory"]["js_heap_bytes"] > 1e5
    with open_platform("chromium", "wasm", threads=2) as platform:
        platform.load()
        for _ in range(2):
            memory = platform.get_performance_metrics()["memory"]
            assert memory["js_heap_bytes"] is None
            assert "threads of wasm sleep" in memory["js_heap_reason"]
