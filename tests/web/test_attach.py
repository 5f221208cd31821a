"""A browser that a person opens: the address, its code, what the detector says of it, and what happens when the tab goes."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import numpy as np
import pytest
from product_model import require, require_network

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web import attach
from ipfs_accelerate_py.web.browser_process import BrowserProcess, start_browser
from ipfs_accelerate_py.web.detector import PlatformDetector, profile
from ipfs_accelerate_py.web.errors import WebPlatformError
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform

TINY = {"size": "tiny", "weights": "synthetic", "use_shader_precompilation": False}


class Person:
    """Opens the address that is told, in a browser of their own, when it is told."""

    def __init__(self, key: str) -> None:
        self._browser = require(key)
        self.opened: list[BrowserProcess] = []
        self.told: list[str] = []

    def hear(self, sentence: str) -> None:
        self.told.append(sentence)
        address = sentence.split("in the browser: ")[1].splitlines()[0]
        self.opened.append(start_browser(self._browser, address))

    def leave(self) -> None:
        for process in self.opened:
            process.stop()


@pytest.fixture
def person(monkeypatch) -> Any:
    someone = Person("firefox")
    original = attach.AttachedPage.__init__
    monkeypatch.setattr(
        attach.AttachedPage, "__init__", lambda self, **options: original(self, **{**options, "tell": someone.hear})
    )
    yield someone
    someone.leave()


def test_a_browser_that_a_person_opens_runs_models_and_its_leaving_is_told(person: Person):
    """Attached by its address, it is recognised by what it says of itself; when the tab goes, the error asks for a new address."""
    with UnifiedWebPlatform("bert", "text", "wasm", "attach", configuration=TINY, recovery="abort") as platform:
        answer = platform.run_inference({"text": "hello"})
        assert answer["metadata"]["browser"] == "firefox"
        assert answer["metadata"]["browser_version"].split(".")[0] == require("firefox").version.split(".")[0]
        url = platform.serve_metrics()
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host)
        connection.request("GET", "/" + path)
        assert b'ipfs_accelerate_web_inference_seconds_count{model="bert"' in connection.getresponse().read()
        connection.request("GET", "/trace.json")
        assert {event["name"] for event in json.loads(connection.getresponse().read())["traceEvents"]} >= {"load", "inference"}
        person.leave()
        with pytest.raises(WebPlatformError, match="closed or left; open a new address"):
            platform.run_inference({"text": "hello"})
    assert len(person.told) == 1


def test_the_detector_reports_what_a_person_s_browser_has(person: Person):
    """Every part of the report, read from the live browser."""
    facts = PlatformDetector("attach").detect()
    assert facts["key"] == "firefox"
    assert facts["mobile"] is False
    assert facts["hardware_concurrency"] >= 1
    assert facts["wasm"]["simd"] is True
    assert facts["webnn"]["available"] is False
    assert facts["profile"]["platform"] in ("webgpu", "wasm")
    assert "token=" in person.told[0]


def test_from_another_address_models_run_too_with_their_files_checked(person: Person):
    """Under the address of the network the page is no secure context: no threads, no WebGPU, no SHA-256 of the browser, and ours holds."""
    configuration = {**TINY, "error_recovery": "abort"}
    require_network()
    with UnifiedWebPlatform("bert", "text", "auto", "attach", configuration=configuration, listen="0.0.0.0") as platform:
        platform.load()
        facts = platform.get_browser_compatibility()
        assert facts["cross_origin_isolated"] is False
        assert (facts["profile"]["platform"], facts["profile"]["threads"]) == ("wasm", 1)
        answer = platform.run_inference({"text": "hello"})
        with UnifiedWebPlatform("bert", "text", web_api_mode="simulation", configuration=TINY) as other:
            expected = other.run_inference({"text": "hello"})["result"]["embeddings"]
        np.testing.assert_allclose(answer["result"]["embeddings"], expected, rtol=1e-3, atol=1e-4)


def test_nobody_comes(monkeypatch):
    """The wait ends with a sentence, and the port is free again."""
    monkeypatch.setattr("builtins.print", lambda *_: None)
    with pytest.raises(LaunchError, match=r"Nobody opened http://127\.0\.0\.1:\d+ in 0\.3 s"):
        attach.AttachedPage(wait_s=0.3)


def test_the_code_for_another_machine_is_drawn_and_says_what_it_cannot():
    """A QR code of the whole address, and the warning that nothing is encrypted; on loopback neither is shown."""
    url = "http://192.168.0.9:4711/#token=abc"
    text = attach.invitation(url, "0.0.0.0")
    assert text.count("█") > 100 or text.count("▄") > 100
    assert "not encrypted" in text
    assert "█" not in attach.invitation(url, "127.0.0.1")


@pytest.mark.parametrize(
    ("agent", "key", "version"),
    [
        ("Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36 Edg/156.0.1.2", "edge", "156.0.1.2"),
        ("Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36", "chrome", "156.0.0.0"),
        ("Mozilla/5.0 (Mac) AppleWebKit/605.1 Version/19.2 Safari/605.1", "safari", "19.2"),
        ("Mozilla/5.0 (X11; rv:153.0) Gecko/20100101 Firefox/153.0", "firefox", "153.0"),
        ("curl/8", "unknown", "unknown"),
    ],
)
def test_the_name_is_the_most_special_one_that_the_browser_states(agent: str, key: str, version: str):
    """Edge also calls itself Chrome, and Chrome Safari."""
    browser = attach.browser_of(agent)
    assert (browser.key, browser.version) == (key, version)


def test_the_profile_follows_from_the_facts_and_not_from_the_name():
    """A GPU with float16 gives webgpu at 16 bit; a software adapter gives way to WebNN, and without that to wasm."""
    gpu = {"available": True, "software_adapter": False, "features": ["shader-f16", "subgroups"], "vendor": "v", "architecture": "", "device": "", "description": "", "limits": {"maxStorageBufferBindingSize": 2**30}}  # noqa: E501 # fmt: skip
    none = {"available": False, "reason": "no", "devices": {}}
    wasm = {"simd": True, "threads": True, "relaxed_simd": True, "memory64": False, "jspi": False}
    facts = {"name": "X", "version": "1", "hardware_concurrency": 8, "wasm": wasm, "webgpu": gpu, "webnn": none}
    found = profile(facts)
    assert (found["platform"], found["precision_bits"], found["threads"]) == ("webgpu", 16, 4)
    assert found["largest_binding_mb"] == pytest.approx(1073.741824)
    software = {**facts, "webgpu": {**gpu, "software_adapter": True}}
    assert profile(software)["platform"] == "wasm"
    assert profile({**software, "webnn": {"available": True, "devices": {"cpu": {"available": True}}}})["platform"] == "webnn"
    assert profile({**facts, "wasm": {**wasm, "threads": False}})["threads"] == 1


def test_several_threads_share_one_page(person: Person):
    """Two requests that come first together open one browser, not two."""
    with UnifiedWebPlatform("bert", "text", "wasm", "attach", configuration=TINY) as platform:
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(platform.run_inference({"text": "hello"}))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(results) == 2
        assert platform._host and platform._host.starts == 1
