"""Tuning on the live adapter: a bounded search whose result is remembered by browser version, adapter and kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import protocol
from .browsers import Browser
from .page_session import Page
from .protocol import AudioSpec
from .remembered import remember_numbers

ANSWER_LIMIT_S = 120.0


def tune_audio(
    browser: Browser, spec: AudioSpec, *, seconds: float = 5.0, budget_ms: int = 4000, adapter: str = "auto"
) -> dict[str, Any]:
    """Find and remember the fastest variant of the spectrogram kernel for recordings of ``seconds``: its workgroup size, and whether it
    uses subgroups where the adapter has them.

    Returns ``threads``, ``subgroups``, ``candidates_ns`` by variant, ``cut_short`` (the budget ended the search), ``search_ms`` and
    ``adapter_key``. The default (64 threads, no subgroups) stays where no other is more than 5 % faster. Raises LaunchError.
    """
    from ..models.processing.audio import example_waves

    wave = example_waves(1, seconds, spec.rate, 0)[0].astype(np.float32)
    request = protocol.Tune(audio=spec, sample_rate=spec.rate, budget_ms=budget_ms)
    tensors = {"samples": wave, "lengths": np.array([len(wave)], np.int32)}
    with Page(browser, adapter=adapter) as page:
        found = page.ask(request, protocol.Facts, "tuning", ANSWER_LIMIT_S, tensors)[0].facts
    kernel = f"{found['adapter_key']}|log_mel"
    remember_numbers(browser, {kernel: found["threads"], f"{kernel}_subgroups": int(found["subgroups"])})
    return found
