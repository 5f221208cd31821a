"""Compile the low-bit engine's pipelines for a plan in a real browser, without weights, and time each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LaunchError, UnavailableError
from ..models.causal import longest_sequence
from ..quantize.blank import shortened, write_blank
from ..quantize.kv import CacheFormat
from ..quantize.plan import Plan
from .browsers import find_browser

ADAPTER_FACTS = ("vendor", "architecture", "device", "description", "software_adapter")
CONTEXT_TOKENS = 512  # of the cache that is made; kernels don't depend on it but for a constant


def precompile(config: Mapping[str, Any], plan: Plan, cache: CacheFormat, browser: str) -> dict[str, Any]:
    """``pipelines`` compiled, and the milliseconds of each in a fresh browser profile.

    The kernels are those of the model's widths; one layer of each combination of bits stands for all, its weights zeros. Pipelines
    compile side by side, so their times overlap; ``load_ms_cold`` is the whole, the upload of those layers with it. Times with a warm
    cache are None: every launch has a profile of its own, and a page compiles a model once. Where there is no browser, or it
    cannot, ``pipelines`` is None and ``reason`` says why. UserError for a browser that nobody knows.
    """
    from .language_model import LanguageModel

    found_none = {"pipelines": None, "per_pipeline": None, "load_ms_cold": None, "load_ms_cached": None}
    try:
        found = find_browser(browser)
        with tempfile.TemporaryDirectory() as folder:
            write_blank(*shortened(config, plan), Path(folder))
            with LanguageModel(
                found,
                folder,
                key_bits=cache.key_bits,
                value_bits=cache.value_bits,
                recent_tokens=cache.recent_tokens,
                context_length=min(CONTEXT_TOKENS, longest_sequence(config)),
            ) as model:
                started = time.perf_counter()
                facts = model.load()
                elapsed_ms = (time.perf_counter() - started) * 1e3
    except (UnavailableError, LaunchError) as unavailable:
        return {**found_none, "reason": str(unavailable)}
    return {
        "pipelines": len(facts["pipelines"]),
        "per_pipeline": [
            {"kernel": entry["kernel"], "label": entry["label"], "cold_ms": entry["ms"]} for entry in facts["pipelines"]
        ],
        "load_ms_cold": elapsed_ms,
        "load_ms_cached": None,
        "reason": "load_ms_cached: every launch has a fresh profile, whose shader cache is empty.",
        "browser": f"{found.name} {found.version}",
        "adapter": {key: facts["device"][key] for key in ADAPTER_FACTS if key in facts["device"]},
        "variant": facts["variant"],
    }
