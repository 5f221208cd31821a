"""Runs one browser and outlives nobody: started as a script by ``browser_process``, with a pipe from its parent as standard input.

The pipe closes when the parent asks for the end and also when the parent dies, by kill -9 too; then the browser's whole process
tree is killed and the work folder removed. On its standard output it tells ``{"pid": ...}`` or ``{"error": ...}``, and at the
browser's end ``{"exit": status}``. The browser's own output goes to a log file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_KILL_TIMEOUT_S = 10


def kill_descendants(of: psutil.Process) -> None:
    """SIGKILL, which a stopped process obeys too, until no living descendant is left: one may fork while it is being killed.

    Gives up on processes that the kernel itself cannot end (waiting for a broken device). Collects no exit status: that is its parent's.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while (living := [child for child in of.children(recursive=True) if _lives(child)]) and time.monotonic() < deadline:
        for child in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        time.sleep(0.005)  # the end of a process that is no child of this one can only be looked for


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _tell(**message: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is dead; the end of its pipe brings the clean-up
        print(json.dumps(message), flush=True)


def main() -> None:
    job = json.loads(sys.stdin.buffer.readline())
    before_exec = None
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1)  # browser processes that lose their parent become children of this one, and are found

        def before_exec() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the browser dies even when this process is killed

    try:
        with open(job["log"], "wb") as log:
            browser = subprocess.Popen(
                job["command"],
                env=job["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=job["work"],
                preexec_fn=before_exec,
            )
    except OSError as error:
        _tell(error=str(error))
    else:
        _tell(pid=browser.pid)
        this = psutil.Process()

        def end_with_parent() -> None:
            sys.stdin.buffer.read()
            kill_descendants(this)

        watch = threading.Thread(target=end_with_parent)
        watch.start()
        status = browser.wait()
        kill_descendants(this)
        _tell(exit=status)
        watch.join()  # the parent may still want the log: the folder stays until it lets go
    shutil.rmtree(job["work"], ignore_errors=True)


if __name__ == "__main__":
    # A terminal's Ctrl-C goes to the parent, which then ends this by the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
    sys.stdout.flush()
    os._exit(0)
