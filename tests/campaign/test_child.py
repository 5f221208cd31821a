"""A child process as its parent sees it: done, dead, hung, or chatty."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from ipfs_accelerate_py.campaign.child import run_child, start_child


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a module of this source importable by children; its name is returned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "child_under_test.py").write_text(source)
        return "child_under_test"

    return write


LIMITS = {"default": 20.0}


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_messages_and_phases_arrive_in_order(module) -> None:
    """Each JSON line is a message; phases are told as they begin."""
    name = module(
        "import json, sys\njob = sys.stdin.readline().strip()\n"
        "for line in ({'phase': 'load'}, {'phase': 'steady'}, {'done': job}): print(json.dumps(line), flush=True)"
    )
    phases: list[str] = []
    ended = run_child(name, "the job", LIMITS, phases.append)
    assert phases == ["load", "steady"]
    assert ended.messages[-1] == {"done": "the job"}
    assert ended.problem is None


def test_a_hung_phase_is_killed_with_everything_it_started(module, tmp_path: Path) -> None:
    """The limit of the phase ends the child, and its own children with it."""
    pid_file = tmp_path / "grandchild"
    name = module(
        "import json, subprocess, sys, time\nprint(json.dumps({'phase': 'compile'}), flush=True)\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\ntime.sleep(600)"
    )
    began = time.monotonic()
    ended = run_child(name, "", {"default": 20.0, "compile": 1.5})
    assert ended.problem == ("timeout", "compile went over its limit of 1.5 s")
    assert time.monotonic() - began < 15
    assert not alive(int(pid_file.read_text()))


def test_a_child_that_dies_leaves_its_signal_and_its_last_words(module) -> None:
    """A crash is told by its signal, and the tail of standard error is kept."""
    name = module("import os, sys\nprint('the last words', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 11)")
    error_class, sentence = run_child(name, "", LIMITS).problem or ("", "")
    assert error_class == "process_died"
    assert "SIGSEGV" in sentence and "the last words" in sentence


def test_a_child_that_cannot_start_says_why() -> None:
    """A module that does not exist ends as a death with Python's own message, not as a broken pipe here."""
    error_class, sentence = run_child("no_such_module_anywhere", "x" * 100_000, LIMITS).problem or ("", "")
    assert error_class == "process_died"
    assert "no_such_module_anywhere" in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals exist on Linux only")
def test_a_child_dies_with_its_parent(module, tmp_path: Path) -> None:
    """kill -9 of the parent leaves no child behind."""
    import subprocess

    pid_file = tmp_path / "pid"
    name = module(
        "import os, time\nfrom ipfs_accelerate_py.measure.launch import die_with_parent\ndie_with_parent()\n"
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from ipfs_accelerate_py.campaign.child import run_child; run_child({name!r}, '', {LIMITS!r})"]
    )
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int(pid_file.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_that_started_before_takes_the_job(module, tmp_path: Path) -> None:
    """It gets its arguments when it starts and its job when that is there; one that is not wanted any more is ended."""
    name = module("import json, sys\nprint(json.dumps({'done': [*sys.argv[1:], sys.stdin.readline().strip()]}), flush=True)")
    ended = run_child(name, "the job", LIMITS, started=start_child(name, "early"))
    assert ended.messages == [{"done": ["early", "the job"]}]
    waiting = start_child(name)
    assert alive(waiting.process.pid)
    waiting.discard()
    assert not alive(waiting.process.pid)
