"""A model in real browsers: right numbers, and every way in which a browser fails becomes its own error."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from browser_family import ended, of_kind, suspend
from onnx import TensorProto, helper, numpy_helper
from product_model import INPUTS, WEIGHTS, require

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.models.export import describe
from ipfs_accelerate_py.models.prepared import Manifest
from ipfs_accelerate_py.platforms.browser_platform import browser_facts
from ipfs_accelerate_py.web.page_session import ENGINE_PROVIDERS, PageSession

Opener = Callable[..., PageSession]

CASES = [
    ("chromium", "wasm"),
    ("firefox", "wasm"),
    ("chromium", "webgpu"),
    ("firefox", "webgpu"),
    ("chromium-headless-shell", "webnn"),
]


def started(session: PageSession) -> PageSession:
    session.timed_phases()
    session.timed_first()
    return session


@pytest.mark.parametrize(("key", "provider"), CASES)
def test_a_model_runs_and_says_what_ran(open_session: Opener, key: str, provider: str):
    """The product is right, times come from the page's clock, every node ran on the provider that was asked for."""
    session = open_session(key, provider)
    assert session.timed_phases().keys() == {"fetch", "load", "compile"}
    first, outputs = session.timed_first()
    np.testing.assert_allclose(outputs["y"], INPUTS["x"] @ WEIGHTS, rtol=1e-5, atol=1e-6)
    assert outputs["y"].dtype == np.float32
    samples = session.timed_samples(3)
    assert len(samples) == 3
    assert first.total_ns > 0
    assert 0 < session.clock_resolution_ns <= 1_000_000
    assert session.process_ids()
    coverage = session.coverage()
    assert coverage is not None
    assert coverage.nodes == {ENGINE_PROVIDERS[provider]: 1}
    facts = session.facts()
    assert facts["bytes_read_back"] == outputs["y"].nbytes
    assert facts["cross_origin_isolated"] is True
    assert facts["browser"]["version"] == require(key).version
    if provider == "webgpu":
        assert facts["software_adapter"] in (True, False)
        assert (session.memory().device_peak_bytes or 0) > WEIGHTS.nbytes
    else:
        assert facts["software_adapter"] is None


def test_the_browser_says_what_it_has():
    """Facts are read from the live browsers: an isolated page with threads, an adapter or the reason why there is none."""
    require("chromium")
    for key, facts in browser_facts().items():
        if isinstance(facts, dict):
            assert facts["cross_origin_isolated"] is True
            assert facts["wasm"]["threads"] is True
            told = facts["hardware_concurrency"]
            assert told in (4, 8) if key == "webkitgtk" else told == os.cpu_count()  # WebKit tells no other numbers
            assert facts["webgpu"]["available"] or facts["webgpu"]["reason"]
            assert facts["webnn"]["available"] or facts["webnn"]["reason"]


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_a_killed_browser_is_a_crash(open_session: Opener, key: str):
    """kill -9 in the middle of a request ends that request with browser_crashed, long before its limit."""
    session = started(open_session(key, "wasm"))
    threading.Timer(0.5, os.kill, (session.process_ids()[0], signal.SIGKILL)).start()
    with pytest.raises(LaunchError) as raised:
        session.timed_samples(10_000_000)
    assert raised.value.error_class == "browser_crashed"
    assert "SIGKILL" in str(raised.value)


def kill_soon(session: PageSession, kind: str) -> None:
    """SIGABRT, half a second from now, to the browser's processes of this kind (``renderer``, ``gpu-process``)."""
    found = of_kind(session.process_ids()[0], kind)
    assert found

    def kill() -> None:
        for process in found:
            process.send_signal(signal.SIGABRT)

    threading.Timer(0.5, kill).start()


def test_a_killed_page_process_is_a_crash(open_session: Opener):
    """A content process that dies (as when memory runs out) is a crash too, though the browser lives on."""
    session = started(open_session("chromium", "wasm"))
    kill_soon(session, "renderer")
    with pytest.raises(LaunchError, match="content process died") as raised:
        session.timed_samples(10_000_000)
    assert raised.value.error_class == "browser_crashed"


@pytest.mark.parametrize(("key", "provider"), [("chromium", "webgpu"), ("chromium-headless-shell", "webnn")])
def test_a_crashed_gpu_process_is_told_from_a_lost_device(open_session: Opener, key: str, provider: str):
    """The page only sees a lost device or context; that its process crashed is in the browser's log."""
    session = started(open_session(key, provider))
    kill_soon(session, "gpu-process")
    with pytest.raises(LaunchError, match="GPU process") as raised:
        session.timed_samples(10_000_000)
    assert raised.value.error_class == "gpu_process_crashed"


@pytest.mark.parametrize(("key", "provider"), CASES[2:])
def test_a_lost_device_is_seen(open_session: Opener, key: str, provider: str):
    """A destroyed GPU device or WebNN context is device_lost, not a wrong result and not a hang."""
    session = started(open_session(key, provider))
    session.lose_device()
    for _ in range(2):
        with pytest.raises(LaunchError) as raised:
            session.timed_samples(1)
        assert raised.value.error_class == "device_lost"


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_a_hang_is_a_timeout_and_closing_still_works(open_session: Opener, key: str):
    """A stopped browser answers nothing: the phase's limit ends the wait, and nothing of it survives."""
    session = started(open_session(key, "wasm", {"default": 60, "steady": 1}))
    root = psutil.Process(session.process_ids()[0])
    family = [root, *root.children(recursive=True)]
    for process in family:
        suspend(process)
    with pytest.raises(LaunchError, match="steady went over its limit of 1 s") as raised:
        session.timed_samples(1)
    assert raised.value.error_class == "timeout"
    session.close()
    assert all(ended(process) for process in family)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_damaged_file_is_named(open_session: Opener, product: Path, name: str, harm: str):
    """A flipped byte or a missing file is load_failed and says which file, before anything runs."""
    path = product / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if harm == "changed":
        path.write_bytes(content)
    with pytest.raises(LaunchError, match=rf"^{name} ") as raised:
        open_session("chromium", "wasm").timed_phases()
    assert raised.value.error_class == "load_failed"


@pytest.fixture
def greedy(product: Path) -> Path:
    """The prepared folder with a graph that needs nearly 4 GiB for a moment, all that wasm can address."""
    shape = numpy_helper.from_array(np.array([2**16, 2**14 - 4], np.int64), "shape")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Expand", ["s", "shape"], ["wide"]),
            helper.make_node("ReduceMax", ["wide"], ["y"]),
        ],
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [shape],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), product / "model.onnx")
    manifest = Manifest.read(product)
    replace(manifest, graphs={"model": describe(product / "model.onnx")}).save(product)
    return product


def test_exhausted_memory_is_told_from_a_failed_inference(greedy: Path, open_session: Opener):
    """The engine's own allocation fails; the page lives on and answers."""
    session = open_session("chromium", "wasm")
    session.timed_phases()
    for _ in range(2):
        with pytest.raises(LaunchError, match=r"(?i)alloc") as raised:
            session.timed_first()
        assert raised.value.error_class == "out_of_memory"


def test_what_the_browser_lacks_is_unsupported(open_session: Opener):
    """WebNN in Firefox is not a failed load: the browser has no such thing."""
    with pytest.raises(LaunchError, match="WebNN") as raised:
        open_session("firefox", "webnn").timed_phases()
    assert raised.value.error_class == "unsupported"


def test_two_sessions_at_once_do_not_meet(open_session: Opener):
    """Two browsers, two bridges: each gets its own answers, and the end of one leaves the other alone."""
    one, other = open_session("chromium", "wasm"), open_session("chromium", "wasm")
    started(one)
    started(other)
    results: dict[str, int] = {}
    threads = [
        threading.Thread(target=lambda name=name, session=session: results.update({name: len(session.timed_samples(200))}))
        for name, session in (("one", one), ("other", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {"one": 200, "other": 200}
    one.close()
    assert len(other.timed_samples(2)) == 2
