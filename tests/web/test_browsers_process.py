"""Real browsers started, crashed, hung and orphaned: nothing survives, and each failure has its class."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from browser_family import of_kind

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.web import browser_flags, browser_process
from ipfs_accelerate_py.web.browser_process import BrowserProcess, start_browser
from ipfs_accelerate_py.web.browsers import Browser, find_browser

REAL = ["chromium", "chromium-headless-shell", "firefox"]
_DEADLINE_S = 60


class Page:
    """A page that reports back when a browser has opened it; ``url`` to open, ``opened`` is set by its script."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.opened = threading.Event()


@pytest.fixture
def page() -> Iterator[Page]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<script>navigator.gpu.requestAdapter().then(() => fetch('/', {method: 'POST'}))</script>")

        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            answer.opened.set()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answer = Page(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield answer
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work folders go below this test's folder, so that leftovers are seen; every test must leave none.

    ``tmp_path`` is only asked for to be made first, in the usual place."""
    with tempfile.TemporaryDirectory(prefix="t") as name:  # not tmp_path, in whose long path Chromium can make no socket
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def alive(pids: list[int]) -> list[int]:
    """Those of ``pids`` that still run; a zombie waits only to be collected and runs no more."""
    running = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
        except psutil.NoSuchProcess:
            continue
    return running


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {_DEADLINE_S} s: {what}"
        time.sleep(0.02)


def opened(key: str, page: Page) -> BrowserProcess:
    process = start_browser(find_browser(key), page.url)
    if not page.opened.wait(_DEADLINE_S):
        log = process.log_tail()
        process.stop()
        pytest.fail(f"{key} did not open the page: {log}")
    process.connected = True
    return process


@pytest.mark.parametrize("key", REAL)
def test_opens_the_page_and_stops_whole(key: str, page: Page, own_temporary_folder: Path) -> None:
    """A browser opens our URL in a fresh profile; stop leaves no process and no folder."""
    with opened(key, page) as process:
        family = process.process_ids()
        assert process.poll() is None and process.failure() is None
        assert family[0] == process.pid and len(family) > 2
        assert process.profile.is_relative_to(own_temporary_folder) and any(process.profile.iterdir())
    assert alive(family) == []
    assert process.poll() == -signal.SIGKILL
    assert process.failure() is None, "an end that was asked for is no failure"
    process.stop()


@pytest.mark.parametrize("key", REAL)
def test_killed_browser_is_a_crash(key: str, page: Page) -> None:
    """A browser that is killed under a connected page is browser_crashed, and its other processes go too."""
    with opened(key, page) as process:
        family = process.process_ids()
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(_DEADLINE_S) == -signal.SIGKILL
        failure = process.failure()
        assert failure is not None and failure.error_class == "browser_crashed"
        assert "SIGKILL" in str(failure)
        assert alive(family) == []
    assert str(process.failure()) == str(failure), "the reason outlives stop"


@pytest.mark.parametrize("key", ["chromium", "chromium-headless-shell"])
def test_gpu_process_crash_is_seen(key: str, page: Page) -> None:
    """Chromium survives its GPU process; the loss is told as gpu_process_crashed while the browser runs."""
    with opened(key, page) as process:
        gpu = of_kind(process.process_ids()[0], "gpu-process")
        assert gpu, "no GPU process"
        gpu[0].send_signal(signal.SIGABRT)
        until(process.failure, "the crash in the log")
        failure = process.failure()
        assert failure is not None and failure.error_class == "gpu_process_crashed"
        assert "exit_code=6" in str(failure)
        assert process.poll() is None


def test_a_page_cannot_pretend_a_gpu_crash() -> None:
    """The words of a GPU crash in a console line, which Chromium logs too, are not taken for one."""
    said = '[1123/050748.1:INFO:CONSOLE:0] "gpu_process_host.cc:1] GPU process exited unexpectedly", source: http://x (0)'
    assert browser_process._GPU_PROCESS_CRASH.search(said) is None
    real = "[10866:10866:1123/050740.974307:ERROR:content/browser/gpu/gpu_process_host.cc:1044] GPU process exited unexpectedly"
    assert browser_process._GPU_PROCESS_CRASH.search(real)


@pytest.mark.parametrize("key", REAL)
def test_hung_browser_is_killed(key: str, page: Page) -> None:
    """A browser all of whose processes are stopped by SIGSTOP is ended by stop all the same."""
    process = opened(key, page)
    family = process.process_ids()
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    process.stop()
    assert alive(family) == []


def test_stuck_supervisor_is_killed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the supervisor itself is stopped, stop does its work."""
    monkeypatch.setattr(browser_process, "_STOP_TIMEOUT_S", 1)
    process = opened("chromium-headless-shell", page)
    family = process.process_ids()
    os.kill(process._supervisor.pid, signal.SIGSTOP)
    process.stop()
    assert alive(family) == []


def test_killed_supervisor_takes_the_browser_along(page: Page) -> None:
    """Kill -9 of the supervisor leaves no browser behind, and the launch fails as a crash."""
    with opened("chromium-headless-shell", page) as process:
        family = process.process_ids()
        os.kill(process._supervisor.pid, signal.SIGKILL)
        assert process.wait(_DEADLINE_S) == -signal.SIGKILL
        until(lambda: not alive(family), f"{family} end")
        failure = process.failure()
        assert failure is not None and failure.error_class == "browser_crashed"


_PARENT = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[3]
from ipfs_accelerate_py.web.browser_process import start_browser
from ipfs_accelerate_py.web.browsers import find_browser
print(start_browser(find_browser(sys.argv[1]), sys.argv[2]).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("key", REAL)
def test_browser_dies_with_a_killed_parent(key: str, page: Page, own_temporary_folder: Path) -> None:
    """Kill -9 of the Python process that started it leaves no browser process and no folder."""
    arguments = [sys.executable, "-c", _PARENT, key, page.url, str(own_temporary_folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        root = int(parent.stdout.readline())
        assert page.opened.wait(_DEADLINE_S)
        family = [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
        assert alive(family) == family
        parent.kill()
    until(lambda: not alive(family), f"{family} end")
    until(lambda: not list(own_temporary_folder.iterdir()), "the work folder goes")


def test_work_of_a_killed_tree_is_removed_by_the_next_start(own_temporary_folder: Path) -> None:
    """A folder whose process is gone is removed; that of a living process stays."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    living = own_temporary_folder / f"ipfs-browser-{os.getpid()}-a"
    stale = own_temporary_folder / f"ipfs-browser-{ended.pid}-b"
    for folder in (living, stale):
        (folder / "profile").mkdir(parents=True)
    browser_process.remove_stale_work()
    assert list(own_temporary_folder.iterdir()) == [living]
    (living / "profile").rmdir()
    living.rmdir()


def script(path: Path, body: str) -> Browser:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Browser("chromium", "Chromium", "chromium", "1.0", path)


def test_browser_that_cannot_be_executed(tmp_path: Path) -> None:
    """A program that the system cannot run raises browser_start at once."""
    broken = script(tmp_path / "broken", "")
    broken.executable.chmod(0o644)
    with pytest.raises(LaunchError, match=r"Chromium did not start.*Permission denied") as raised:
        start_browser(broken, "about:blank")
    assert raised.value.error_class == "browser_start"


def test_browser_that_ends_at_once(tmp_path: Path) -> None:
    """A browser that ends before the page connects is browser_start, with its last words."""
    with start_browser(script(tmp_path / "weak", "echo no display >&2; exit 3"), "about:blank") as process:
        assert process.wait(_DEADLINE_S) == 3
        failure = process.failure()
        assert failure is not None and failure.error_class == "browser_start"
        assert str(failure) == "Chromium 1.0 exited with status 3: no display"
    assert process.log_tail() == "no display", "the log outlives the folder"


def test_orphans_of_the_browser_are_counted_and_killed(tmp_path: Path) -> None:
    """A process that left the browser's tree and its session still belongs to it."""
    browser = script(tmp_path / "forks", f"(setsid sleep 600 & echo $! > {tmp_path / 'orphan'}); exec sleep 600")
    written = tmp_path / "orphan"
    with start_browser(browser, "about:blank") as process:
        until(lambda: written.exists() and written.read_text().strip(), "the orphan starts")
        orphan = int(written.read_text())
        until(lambda: set(process.process_ids()) == {process.pid, orphan}, "both, and only they, are counted")
    assert alive([process.pid, orphan]) == []


def test_given_profile_is_kept(tmp_path: Path) -> None:
    """A profile that the caller names stays after stop."""
    kept = tmp_path / "kept"
    with start_browser(script(tmp_path / "idle", "exec sleep 600"), "about:blank", profile=kept) as process:
        assert process.profile == kept
    assert kept.is_dir()


@pytest.mark.parametrize(
    ("gpu", "adapter", "software"), [(False, "auto", True), (True, "auto", False), (True, "software", True)]
)
def test_adapter_chooses_the_flags(
    gpu: bool, adapter: str, software: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, or when asked to, Chromium is told to use SwiftShader; else Vulkan. Extra features join ours."""
    monkeypatch.setattr(browser_flags, "has_gpu_device", lambda: gpu)
    monkeypatch.setattr(sys, "platform", "linux")
    browser = Browser("chromium", "Chromium", "chromium", "1.0", tmp_path / "chromium")
    flags = browser_flags.command(browser, "URL", tmp_path, adapter, ["--enable-features=Mine", "--lang=en"])
    assert ("--use-webgpu-adapter=swiftshader" in flags) == software
    assert ("--use-vulkan=native" in flags) != software
    features = [flag for flag in flags if flag.startswith("--enable-features=")]
    assert len(features) == 1 and "WebMachineLearningNeuralNetwork" in features[0] and "Mine" in features[0]
    assert "--lang=en" in flags and flags[-1] == "URL"


def test_unknown_adapter_is_a_sentence(tmp_path: Path) -> None:
    """A misspelt adapter names the nearest one."""
    browser = Browser("chromium", "Chromium", "chromium", "1.0", tmp_path / "chromium")
    with pytest.raises(UserError, match="did you mean software"):
        start_browser(browser, "URL", adapter="sofware")


@pytest.mark.parametrize(("user", "expected"), [(0, True), (1000, False)])
def test_sandbox_is_given_up_only_as_root(user: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-sandbox is used only where Chromium would refuse to start."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    browser = Browser("chromium", "Chromium", "chromium", "1.0", tmp_path / "chromium")
    assert ("--no-sandbox" in browser_flags.command(browser, "URL", tmp_path, "auto", [])) == expected
