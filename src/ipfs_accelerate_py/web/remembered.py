"""What earlier starts of a browser found out and the next one need not find again: tuned numbers, and compiled pipelines as text.

CACHE/tuning/BROWSER-VERSION.json     numbers by "adapter|what"; the page takes those of its live adapter
CACHE/pipelines/KEY.json              pipelines of a model in a browser, see RecordedPipeline
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..paths import cache_folder
from ..spec import identity
from .browsers import Browser
from .protocol import RecordedPipeline

MOST_RECORDINGS = 200  # the WGSL of a model each; the oldest go


def tuned_numbers(browser: Browser) -> dict[str, int]:
    """All that is known for this browser version, by "adapter|what": ``readback`` (1 woken, 0 plain), workgroup sizes by kernel and
    whether it uses subgroups."""
    path = _tuning(browser)
    return {str(name): int(value) for name, value in json.loads(path.read_text()).items()} if path.is_file() else {}


def remember_numbers(browser: Browser, found: Mapping[str, int]) -> None:
    _write(_tuning(browser), tuned_numbers(browser) | dict(found))


def remember_trial(browser: Browser, facts: Mapping[str, Any]) -> None:
    """The outcome of the trial of readbacks in what a page tells of its start, where it made one."""
    trial = facts["readback"]
    if trial and trial["plain_ns"]:
        remember_numbers(browser, {f"{facts['adapter_key']}|readback": int(trial["readback"] == "woken")})


def pipeline_key(browser: Browser, adapter: str, build: str, files: Sequence[str], message: Mapping[str, Any]) -> str:
    """Identity of what decides a model's pipelines: browser version, kind of adapter, our runtime's build, the files and their shapes."""
    parts = {name: message[name] for name in ("provider", "precision", "dimensions", "generation")}
    return identity(
        {"browser": [browser.key, browser.version], "adapter": adapter, "build": build, "files": list(files), **parts}
    )


def recorded_pipelines(key: str) -> tuple[RecordedPipeline, ...]:
    path = _recordings() / f"{key}.json"
    return tuple(RecordedPipeline(**each) for each in json.loads(path.read_text())) if path.is_file() else ()


def remember_pipelines(key: str, pipelines: Sequence[RecordedPipeline]) -> None:
    _write(_recordings() / f"{key}.json", [asdict(pipeline) for pipeline in pipelines])
    kept = sorted(_recordings().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[MOST_RECORDINGS:]:
        path.unlink(missing_ok=True)


def _recordings() -> Path:
    return cache_folder() / "pipelines"


def _tuning(browser: Browser) -> Path:
    return cache_folder() / "tuning" / (re.sub(r"[^A-Za-z0-9.]+", "_", f"{browser.key}-{browser.version}") + ".json")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(value))
    written.replace(path)
