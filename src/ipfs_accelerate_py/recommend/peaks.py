"""What torch's CPU allocator really held while something ran, exact to the byte, from its profiler's record of each allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def allocated(action: Callable[[], Any]) -> tuple[int, int]:
    """Peak and final bytes of tensors above those that lived before ``action``. Its result counts as living."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = action()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    live = peak = 0
    for _, size in changes:
        live += size
        peak = max(peak, live)
    del kept
    return peak, live
