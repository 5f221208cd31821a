"""Compile the low-bit engine's pipelines for a plan in a real browser, without weights, and time each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ..errors import LaunchError, UnavailableError
from ..models.causal import longest_sequence
from ..quantize.blank import shortened, write_blank
from ..quantize.kv import CacheFormat
from ..quantize.plan import Plan
from .browsers import find_browser
from .page_session import Page

ADAPTER_FACTS = ("vendor", "architecture", "device", "description", "software_adapter")
CONTEXT_TOKENS = 512  # of the cache that is made; kernels don't depend on it but for a constant


def precompile(config: Mapping[str, Any], plan: Plan, cache: CacheFormat, browser: str) -> dict[str, Any]:
    """``pipelines`` compiled, and the milliseconds of each: cold in a fresh browser profile, cached when the same model is opened again in
    that browser, on a new device.

    The kernels are those of the model's widths; one layer of each combination of bits stands for all, its weights zeros. Pipelines
    compile side by side, so their times overlap; ``load_ms_cold`` and ``load_ms_cached`` are the whole, the upload of those layers with it.
    Where there is no browser, or it cannot, ``pipelines`` is None and ``reason`` says why. UserError for a browser that nobody knows.
    """
    found_none = {"pipelines": None, "per_pipeline": None, "load_ms_cold": None, "load_ms_cached": None}
    short, formats = shortened(config, plan)
    # A file and the device's copy of it at once, where a software adapter keeps its buffers in this memory too.
    needed, free = 2 * formats.stored_bytes(short), psutil.virtual_memory().available
    if needed > free:
        why = f"A layer of each kind and the embeddings need {needed / 1e9:.1f} GB while they load, and {free / 1e9:.1f} GB are free here."
        return {**found_none, "reason": why}
    try:
        found = find_browser(browser)
        with tempfile.TemporaryDirectory() as folder:
            write_blank(short, formats, Path(folder))
            with Page(found) as page:
                facts, cold_ms = _load(page, Path(folder), config, cache)
                again, cached_ms = _load(page, Path(folder), config, cache)
    except (UnavailableError, LaunchError) as unavailable:
        return {**found_none, "reason": str(unavailable)}
    cached: dict[tuple[str, str], list[float]] = {}
    for entry in again["pipelines"]:
        cached.setdefault((entry["kernel"], entry["label"]), []).append(entry["ms"])
    return {
        "pipelines": len(facts["pipelines"]),
        "per_pipeline": [
            {
                "kernel": entry["kernel"],
                "label": entry["label"],
                "cold_ms": entry["ms"],
                "cached_ms": cached[entry["kernel"], entry["label"]].pop(0),
            }
            for entry in facts["pipelines"]
        ],
        "load_ms_cold": cold_ms,
        "load_ms_cached": cached_ms,
        "reason": None,
        "browser": f"{found.name} {found.version}",
        "adapter": {key: facts["device"][key] for key in ADAPTER_FACTS if key in facts["device"]},
        "variant": facts["variant"],
    }


def _load(page: Page, folder: Path, config: Mapping[str, Any], cache: CacheFormat) -> tuple[dict[str, Any], float]:
    """What the page says of the loaded model, and how long that took in milliseconds."""
    from .language_model import LanguageModel

    with LanguageModel(
        page.browser,
        folder,
        key_bits=cache.key_bits,
        value_bits=cache.value_bits,
        recent_tokens=cache.recent_tokens,
        context_length=min(CONTEXT_TOKENS, longest_sequence(config)),
        page=page,
    ) as model:
        started = time.perf_counter()
        facts = model.load()
        return facts, (time.perf_counter() - started) * 1e3
