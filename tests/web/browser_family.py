"""The processes of a browser by their kind; its short-lived helpers may end while they are listed."""

from __future__ import annotations

import contextlib

import psutil


def of_kind(browser_id: int, kind: str) -> list[psutil.Process]:
    """The living descendants of a Chromium with ``--type={kind}``: ``renderer``, ``gpu-process``."""
    found = []
    for process in psutil.Process(browser_id).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile, or ended and not yet waited for
            if f"--type={kind}" in process.cmdline():
                found.append(process)
    return found


def ended(process: psutil.Process) -> bool:
    """Gone, or waiting for a parent that may never ask for it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def suspend(process: psutil.Process) -> None:
    """Stopped as by Ctrl-Z, unless it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
