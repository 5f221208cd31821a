"""Work in a child process, as the parent sees it: it sleeps on a pipe, has a limit for each phase, and reads how the child ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil


@dataclass(frozen=True)
class Ended:
    """How a child ended. ``messages`` are its JSON lines; ``problem`` is None or (error class, sentence); ``phase`` is its last."""

    messages: list[dict[str, Any]]
    phase: str
    problem: tuple[str, str] | None
    duration_s: float


@dataclass(frozen=True)
class Child:
    """A child that has started and waits for its job."""

    process: subprocess.Popen[str]
    errors: IO[bytes]

    def discard(self) -> None:
        """End one that is not wanted any more."""
        kill_tree(self.process)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream:
                stream.close()


def start_child(module: str, *arguments: str) -> Child:
    """``python -m module``, which leads a process group of its own."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - its child outlives this function
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        text=True,
    )
    return Child(process, errors)


def run_child(
    module: str,
    job: str,
    limits_s: Mapping[str, float],
    on_phase: Callable[[str], None] = lambda name: None,
    started: Child | None = None,
) -> Ended:
    """Run ``python -m module`` with ``job`` as its only line of input until it ends or a phase goes over its limit.

    The child, or the one of this module that has ``started`` already, is killed with all its group: at a limit, and when this process
    is interrupted.
    """
    began = time.monotonic()
    oom_kills = _oom_kills()
    child = started or start_child(module)
    process = child.process
    with child.errors as errors:
        watch: _Watch | None = None
        messages: list[dict[str, Any]] = []
        try:
            watch = _Watch(process, limits_s)
            assert process.stdin and process.stdout
            with contextlib.suppress(BrokenPipeError):  # it died before it read its job: the exit status tells why
                process.stdin.write(job + "\n")
                process.stdin.flush()
            for line in process.stdout:
                try:
                    message = json.loads(line)
                except json.JSONDecodeError:
                    break  # it was killed in the middle of a line; how it ended tells the rest
                messages.append(message)
                if "phase" in message:
                    watch.enter(message["phase"])
                    on_phase(message["phase"])
            status = process.wait()
        finally:
            if watch:
                watch.stop()
            kill_tree(process)
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()
        problem: tuple[str, str] | None = None
        if watch.expired:
            problem = ("timeout", f"{watch.phase} went over its limit of {watch.limit_s:g} s")
        elif status != 0:
            problem = _explain(status, _tail(errors), _oom_kills() - oom_kills)
        return Ended(messages, watch.phase, problem, time.monotonic() - began)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill the process and everything that it started, also what left its group."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, and so did its group
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=5)


class _Watch:
    """Kills the child when the phase that it is in takes longer than its limit. A timer thread sleeps; nothing polls."""

    def __init__(self, process: subprocess.Popen[str], limits_s: Mapping[str, float]) -> None:
        self._process = process
        self._limits_s = limits_s
        self._timer: threading.Timer | None = None
        self.expired = False
        self.enter("start")

    def enter(self, phase: str) -> None:
        self.stop()
        if self.expired:
            return  # a line that was still in the pipe: the phase that went over its limit is the one before
        self.phase = phase
        # A session with its own clock announces several phases as one, "fetch, load, compile".
        self.limit_s = sum(self._limits_s.get(name, self._limits_s["default"]) for name in phase.split(", "))
        self._timer = threading.Timer(self.limit_s, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer.join()  # a kill under way is complete when this returns

    def _expire(self) -> None:
        self.expired = True
        kill_tree(self._process)


def _explain(status: int, tail: str, oom_kills: int) -> tuple[str, str]:
    if status == -signal.SIGKILL and oom_kills > 0:
        return "out_of_memory", "the kernel's out-of-memory killer ended the launch's process"
    if status < 0:
        return "process_died", f"the launch's process was ended by {signal.Signals(-status).name}. {tail}".strip()
    return "process_died", f"the launch's process exited with status {status}. {tail}".strip()


def _oom_kills() -> int:
    """The kernel's count of out-of-memory kills since boot (Linux); 0 where there is no such count."""
    counters = Path("/proc/vmstat")
    if not counters.exists():
        return 0
    return next((int(line.split()[1]) for line in counters.read_text().splitlines() if line.startswith("oom_kill ")), 0)


def _tail(errors: Any, characters: int = 2000) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - characters))
    return errors.read().decode(errors="replace").strip()
