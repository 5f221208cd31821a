"""Recovery by doing it: browsers are killed, stopped and cut off in the middle, and the answer still comes, or the named error."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from browser_family import ended, of_kind, suspend
from product_model import require

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web.async_platform import AsyncUnifiedWebPlatform
from ipfs_accelerate_py.web.errors import BrowserCompatibilityError, HardwareError, ModelError, ShardingError, WebRuntimeError
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.protocol import DecodedToken, RunKernel, decode

TINY = {"size": "tiny", "weights": "synthetic", "use_shader_precompilation": False}
TEXT = {"text": "the ferry leaves at seven"}

Opener = Callable[..., UnifiedWebPlatform]


@pytest.fixture
def opened() -> Any:
    """``opened(platform, recovery, **options)``: bert tiny in Chromium, loaded; closed at the end of the test."""
    made: list[UnifiedWebPlatform] = []

    def open_one(provider: str = "wasm", recovery: str = "auto", key: str = "chromium", **options: Any) -> UnifiedWebPlatform:
        require(key)
        configuration = {**TINY, **options.pop("configuration", {})}
        name = options.pop("name", "bert")
        made.append(UnifiedWebPlatform(name, "text", provider, key, recovery=recovery, configuration=configuration, **options))  # type: ignore[arg-type]
        made[-1].load()
        return made[-1]

    yield open_one
    for platform in made:
        platform.close()


def process_of(platform: UnifiedWebPlatform) -> psutil.Process:
    assert platform._host and platform._host.live
    return psutil.Process(platform._host.live.page.process.process_ids()[0])


def await_end(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 30
    while not all(ended(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_browser(platform: UnifiedWebPlatform) -> None:
    """Until all of it is gone: its page lives on for a moment, and may answer."""
    root = process_of(platform)
    family = [root, *root.children(recursive=True)]
    root.kill()
    await_end(family)


def kill_kind(kind: str) -> Callable[[UnifiedWebPlatform], None]:
    def kill(platform: UnifiedWebPlatform) -> None:
        found = of_kind(process_of(platform).pid, kind)
        assert found
        for process in found:
            process.send_signal(signal.SIGABRT)
        await_end(found)

    return kill


def stop_all(platform: UnifiedWebPlatform) -> None:
    """A hang: every process of the browser is suspended, and the limit of a pass is short from now on."""
    root = process_of(platform)
    for process in [root, *root.children(recursive=True)]:
        suspend(process)
    platform.timeout_s = 1.0


def drop_socket(platform: UnifiedWebPlatform) -> None:
    assert platform._host and platform._host.live
    bridge = platform._host.live.page.bridge
    assert bridge._page and bridge._loop
    asyncio.run_coroutine_threadsafe(bridge._page.close(), bridge._loop).result(10)


def lose_device(platform: UnifiedWebPlatform) -> None:
    assert platform.runner.opened
    platform.runner.opened.served.lose_device()  # type: ignore[attr-defined]


def hang_shader(platform: UnifiedWebPlatform) -> None:
    """A kernel of some 10^14 steps: the GPU's process works on, and nothing behind it is answered."""
    assert platform._host and platform._host.live
    constants = {"COLUMNS": 2**30, "WORKGROUP": 64, "EPSILON": 1e-5, "SUMS": 1}
    outputs = ("0.2",)
    message = RunKernel(kernel="rms_norm", constants=constants, workgroups=(65535,), outputs=outputs, subgroups=False)
    tensors = {f"0.{binding}": np.zeros(64, np.uint8) for binding in range(3)}
    with pytest.raises(LaunchError, match="went over its limit"):
        platform._host.live.page.bridge.request(message, tensors, timeout_s=2.0, phase="the endless kernel")
    platform.timeout_s = 1.0


FAULTS: list[tuple[str, str, Callable[[UnifiedWebPlatform], None], str]] = [
    ("browser killed", "wasm", kill_browser, "browser_crashed"),
    ("tab gone", "wasm", kill_kind("renderer"), "browser_crashed"),
    ("socket dropped", "wasm", drop_socket, "browser_crashed"),
    ("browser hangs", "wasm", stop_all, "timeout"),
    ("shader hangs", "webgpu", hang_shader, "timeout"),
    ("device lost", "webgpu", lose_device, "device_lost"),
    ("GPU process crashed", "webgpu", kill_kind("gpu-process"), "gpu_process_crashed"),
]


@pytest.mark.parametrize(
    ("provider", "harm", "error_class"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_after_a_fault_the_answer_still_comes(
    opened: Opener, provider: str, harm: Callable[[UnifiedWebPlatform], None], error_class: str
):
    """A new browser, the model again, the same numbers; ``degradations`` and the metrics say what was done."""
    platform = opened(provider)
    before = platform.run_inference(TEXT)["result"]["embeddings"]
    harm(platform)
    platform.runner._recovery._sleep = lambda seconds: setattr(platform, "timeout_s", 60.0)
    answer = platform.run_inference(TEXT)
    np.testing.assert_allclose(answer["result"]["embeddings"], before, rtol=1e-3, atol=1e-4)
    steps = answer["metadata"]["degradations"]
    assert [step["action"] for step in steps] == ["retry"]
    assert steps[0]["because"]
    assert answer["metadata"]["platform"] == provider
    metrics = platform.get_performance_metrics()
    assert sum(metrics["failures"].values()) == 1
    assert set(metrics["failures"]) <= {error_class, "browser_crashed", "device_lost", "gpu_process_crashed"}
    assert metrics["recoveries"] == {"retry": 1}


def test_abort_raises_the_cause_and_a_later_request_starts_anew(opened: Opener):
    """No second try; the error names what happened and what to do."""
    platform = opened(recovery="abort")
    kill_browser(platform)
    with pytest.raises(WebRuntimeError, match="Chromium") as raised:
        platform.run_inference(TEXT)
    assert raised.value.details["error_class"] == "browser_crashed"
    assert raised.value.recovery_actions
    assert platform.run_inference(TEXT)["metadata"]["degradations"] == []


def test_fallback_moves_to_the_next_engine_at_once(opened: Opener):
    """A lost device: from WebGPU to wasm, since this Chromium has no WebNN, and the numbers are the same."""
    platform = opened("webgpu", "fallback")
    before = platform.run_inference(TEXT)["result"]["embeddings"]
    lose_device(platform)
    answer = platform.run_inference(TEXT)
    np.testing.assert_allclose(answer["result"]["embeddings"], before, rtol=1e-3, atol=1e-4)
    assert answer["metadata"]["platform"] == "wasm"
    (step,) = answer["metadata"]["degradations"]
    assert (step["action"], step["before"], step["after"]) == ("platform", "webgpu float32", "wasm float32")
    assert "webnn was passed over" in step["because"]


def test_retry_never_steps_down(opened: Opener):
    """WebNN in a browser without it: retry refuses, auto goes to wasm and says so."""
    with pytest.raises(BrowserCompatibilityError, match="no WebNN"):
        opened("webnn", "retry")
    answer = opened("webnn", "auto").run_inference(TEXT)
    assert answer["metadata"]["platform"] == "wasm"
    assert [step["action"] for step in answer["metadata"]["degradations"]] == ["platform"]


def test_weights_above_the_threshold_lower_the_precision(opened: Opener):
    """bert tiny has 0.67 MB at float32 and fits 0.5 MB at int8: the step and its arithmetic are told; abort refuses."""
    answer = opened(configuration={"memory_threshold_mb": 0.5}).run_inference(TEXT)
    assert answer["metadata"]["precision"] == "int8"
    (step,) = answer["metadata"]["degradations"]
    assert (step["action"], step["after"]) == ("precision", "int8")
    assert "above memory_threshold_mb = 0.5" in step["because"]
    with pytest.raises(ShardingError, match=r"above memory_threshold_mb = 0\.5"):
        opened(recovery="abort", configuration={"memory_threshold_mb": 0.5})


def test_a_corrupt_download_is_fetched_again_and_then_named(opened: Opener, tmp_path: Path, monkeypatch):
    """A flipped byte: the page refuses the file by its hash. Whole at the second fetch it loads; corrupt for good it is a ModelError."""
    platform = opened()
    folder, graphs = platform.model.graphs("float32", lambda step: None)
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / graphs["model"].files[0]
    whole = path.read_bytes()
    monkeypatch.setattr(type(platform.model), "graphs", lambda *_: (tmp_path / "model", graphs))

    def corrupt() -> None:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        platform._host.discard()  # type: ignore[union-attr]

    corrupt()
    platform.runner._recovery._sleep = lambda seconds: path.write_bytes(whole) and None
    assert [step["action"] for step in platform.run_inference(TEXT)["metadata"]["degradations"]] == ["retry"]
    corrupt()
    monkeypatch.setattr(platform.runner._recovery, "mode", "retry")
    platform.runner._recovery._sleep = lambda seconds: None
    with pytest.raises(ModelError, match="is not the file of the manifest"):
        platform.run_inference(TEXT)


def test_a_stream_goes_on_after_the_browser_was_killed(opened: Opener):
    """The tokens before and after are those of an undisturbed generation, none twice."""
    platform = opened(name="llama")
    whole = platform.run_inference({"text": "once"}, max_new_tokens=40)["result"]["token_ids"][0]
    assert platform._host and platform._host.live
    bridge = platform._host.live.page.bridge
    take, taken = bridge._take, []

    def cut(raw: str | bytes) -> None:
        """Five tokens come through; then the browser is killed, and nothing that it had sent already is heard."""
        if len(taken) == 5:
            return
        take(raw)
        taken.extend(["token"] * isinstance(decode(raw).message, DecodedToken))
        if len(taken) == 5:
            kill_browser(platform)

    bridge._take = cut  # type: ignore[method-assign]
    assert [token.token_id for token in platform.stream({"text": "once"}, max_new_tokens=40)] == whole
    assert len(taken) == 5
    assert platform.get_performance_metrics()["recoveries"] == {"retry": 1}


def test_a_hundred_requests_at_once_all_get_their_own_answer(opened: Opener):
    """Through asyncio, more than the page takes at a time; in the middle the browser is killed, once. None is lost or mixed up."""
    require("chromium")
    texts = [f"text {number} {'y' * (number % 7)}" for number in range(100)]

    async def ask_all() -> tuple[list[Any], int]:
        async with AsyncUnifiedWebPlatform("bert", "text", "wasm", "chromium", configuration=TINY) as platform:
            await platform.load()
            tasks = [asyncio.create_task(platform.run_inference({"text": text})) for text in texts]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            kill_browser(platform.platform)
            answers = await asyncio.gather(*tasks)
            starts = platform.platform._host.starts  # type: ignore[union-attr]
            return [answer["result"]["embeddings"][0] for answer in answers], starts

    answers, starts = asyncio.run(ask_all())
    expected = opened().run_inference({"text": texts})["result"]["embeddings"]
    np.testing.assert_allclose(np.stack(answers), expected, rtol=1e-3, atol=1e-4)
    assert starts == 2


def test_more_requests_than_max_pending_are_refused(opened: Opener):
    """One waits behind another that is held; the third gets a sentence at once, and the two that were taken are answered."""
    platform = opened(configuration={"max_pending": 2})
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        entered.set()
        assert leave.wait(60)

    holders = [threading.Thread(target=platform.runner.execute, args=(hold, 1)) for _ in range(2)]
    for holder in holders:
        holder.start()
    assert entered.wait(60)
    deadline = time.monotonic() + 60
    while platform.runner._pending < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(WebRuntimeError, match="2 requests wait already"):
        platform.run_inference(TEXT)
    leave.set()
    for holder in holders:
        holder.join(60)
    assert platform.run_inference(TEXT)["success"]


def test_a_closed_platform_says_so(opened: Opener):
    """After close nothing starts a browser again."""
    platform = opened()
    platform.close()
    platform.close()
    with pytest.raises(WebRuntimeError, match="This platform is closed"):
        platform.run_inference(TEXT)
    assert platform._host and platform._host.live is None


def test_a_device_that_is_lost_is_hardware_where_nothing_recovers(opened: Opener):
    """abort: HardwareError with the class of the failure."""
    platform = opened("webgpu", "abort")
    lose_device(platform)
    with pytest.raises(HardwareError) as raised:
        platform.run_inference(TEXT)
    assert raised.value.details["error_class"] == "device_lost"
