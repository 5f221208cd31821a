"""Sentences of the recommendation with the command line's own options in the place of Python's arguments."""

from __future__ import annotations

import re
from typing import Any

OPTIONS = {
    "batch_size": "--batch-size",
    "sequence_length": "--sequence-length",
    "mode": "--mode",
    "gpu_count": "--gpu-count",
    "max_memory_gb": "--max-memory-gb",
    "latency_slo_ms": "--latency-limit-ms",
    "available_hardware": "--hardware",
}
_GIVEN = re.compile(rf"\b({'|'.join(OPTIONS)})=('?)([\w.+-]*\w)\2")
# The mode is a word of every day as well: it is an argument only where a value is given.
_NAMED = re.compile(rf"\b({'|'.join(name for name in OPTIONS if '_' in name)})\b")


def spoken(text: str) -> str:
    """``max_memory_gb=4`` as ``--max-memory-gb 4``, and ``gpu_count`` as ``--gpu-count``."""
    text = _GIVEN.sub(lambda found: f"{OPTIONS[found[1]]} {found[3]}", text)
    return _NAMED.sub(lambda found: OPTIONS[found[1]], text)


def spoken_values(value: Any) -> Any:
    """The same in every text of a JSON value, but not in its keys, nor in a configuration, which is a file of its own."""
    if isinstance(value, dict):
        return {key: item if key == "configuration" else spoken_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spoken_values(item) for item in value]
    return spoken(value) if isinstance(value, str) else value
