"""Start a browser on a URL in a fresh profile, say how it fails, and end it with everything that it started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from ..errors import LaunchError
from . import browser_flags, browser_supervisor
from .browsers import Browser

_PREFIX = "ipfs-browser-"  # short, see browser_flags._LONGEST_TMPDIR
_STOP_TIMEOUT_S = 15
_TAIL_BYTES = 8000
_SEARCH_BYTES = 4_000_000
_KILLED = -9  # SIGKILL, a name that Windows lacks
# Chromium's own log lines; a page cannot write one, its console lines carry another source. Firefox on Linux has no GPU process.
_GPU_PROCESS_CRASH = re.compile(
    r"^\[[^\]]*(?:gpu_process_host|gpu_data_manager_impl_private)\.cc:\d+\] (GPU process .*)", re.MULTILINE
)


class BrowserProcess:
    """A running browser, made by ``start_browser``; a context manager that stops it.

    ``connected`` is set by whoever sees the page connect back: an end before that is a failed start, one after it a crash.
    """

    def __init__(self, browser: Browser, supervisor: subprocess.Popen[str], work: Path, profile: Path) -> None:
        self.browser = browser
        self.profile = profile
        self.connected = False
        self._supervisor = supervisor
        self._work = work
        self._log = (work / "browser.log").open("rb")  # stays readable when the folder goes
        self._lock = threading.RLock()  # a watcher may read the log while another thread stops the browser
        self._final_log: str | None = None
        self._final_failure: LaunchError | None = None
        self._status: int | None = None
        self._ended = threading.Event()
        assert supervisor.stdout
        message = json.loads(supervisor.stdout.readline() or '{"error": "its supervisor died"}')
        if "error" in message:
            self._ended.set()
            self.stop()
            raise LaunchError("browser_start", f"{browser.name} did not start: {message['error']}.")
        self.pid: int = message["pid"]
        threading.Thread(target=self._await_end, name=f"browser-{self.pid}", daemon=True).start()

    def __enter__(self) -> BrowserProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Exit status of the browser, negative for a signal, or None while it runs."""
        return self._status

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Sleep until the browser ends by itself or is stopped; its exit status, or None when the time is over."""
        self._ended.wait(timeout_s)
        return self._status

    def process_ids(self) -> list[int]:
        """Every living process of the browser, its root first: the root's tree, and orphans of that tree."""
        try:
            tree = psutil.Process(self._supervisor.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return sorted((process.pid for process in tree), key=lambda pid: pid != self.pid)

    def log_tail(self) -> str:
        """The end of what the browser wrote to standard output and standard error."""
        return self._read_log()[-_TAIL_BYTES:]

    def failure(self) -> LaunchError | None:
        """What went wrong, by exit status and log: so far, or before ``stop``, which is no failure itself. None for a healthy one."""
        if self._final_log is not None:
            return self._final_failure
        status, log = self._status, self._read_log()
        if crash := _GPU_PROCESS_CRASH.search(log):
            sentence = f"{self.browser.name} {self.browser.version}: {crash.group(1)}"
            return LaunchError("gpu_process_crashed", sentence)
        if status is None:
            return None
        how = f"exited with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        last = "".join(log.splitlines()[-1:])
        sentence = f"{self.browser.name} {self.browser.version} {how}{': ' + last if last else ''}"
        return LaunchError("browser_crashed" if self.connected else "browser_start", sentence)

    def stop(self) -> None:
        """Kill the whole process tree, hung or not, and remove the fresh profile. Safe to call again."""
        with self._lock:
            if self._final_log is not None:
                return
            self._final_failure = self.failure()
            self._final_log = self._read_log()
            self._log.close()  # before the folder goes: Windows removes no open file
            assert self._supervisor.stdin
            with contextlib.suppress(BrokenPipeError):
                self._supervisor.stdin.close()
            try:
                self._supervisor.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # it was stopped or is itself stuck: do its work from here
                browser_supervisor.kill_descendants(psutil.Process(self._supervisor.pid))
                self._supervisor.kill()
                self._supervisor.wait()
            shutil.rmtree(self._work, ignore_errors=True)
            self._ended.wait(_STOP_TIMEOUT_S)

    def _read_log(self) -> str:
        with self._lock:
            if self._final_log is not None:
                return self._final_log
            end = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, end - _SEARCH_BYTES))
            return self._log.read().decode(errors="replace").strip()

    def _await_end(self) -> None:
        assert self._supervisor.stdout
        with self._supervisor.stdout as lines:
            last = lines.readline()
        # Without a last word the supervisor was killed, and the kernel then killed the browser with it.
        self._status = json.loads(last)["exit"] if last else _KILLED
        self._ended.set()


def start_browser(
    browser: Browser, url: str, *, profile: Path | None = None, adapter: str = "auto", extra_flags: Sequence[str] = ()
) -> BrowserProcess:
    """Open ``url`` in a headless ``browser`` with a fresh profile, or in ``profile``, which is then kept.

    ``adapter`` chooses where WebGPU runs, see ``browser_flags.command``. It returns as soon as the process runs; that the page
    loads is for the caller to see. The browser dies with this Python process, however that ends. Raises LaunchError (browser_start).
    """
    remove_stale_work()
    # The name tells whose it is, so that what a killed process tree left behind can be told from what is in use.
    work = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        own_profile = profile or work / "profile"
        own_profile.mkdir(parents=True, exist_ok=True)
        (work / "browser.log").touch()
        job = {
            "command": browser_flags.command(browser, url, own_profile, adapter, extra_flags),
            "environment": browser_flags.environment(browser, work, adapter),
            "work": str(work),
            "log": str(work / "browser.log"),
        }
        supervisor = subprocess.Popen(
            [sys.executable, "-P", browser_supervisor.__file__],  # -P: what lies beside the script is no top-level module
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    assert supervisor.stdin
    with contextlib.suppress(BrokenPipeError):  # it died at once: its missing answer tells
        supervisor.stdin.write(json.dumps(job) + "\n")
        supervisor.stdin.flush()
    return BrowserProcess(browser, supervisor, work, own_profile)


def remove_stale_work() -> None:
    """Remove work folders whose Python process is gone: left by a kill of the whole process tree or by a power cut."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
