"""What a browser offers, read from the browser itself while it runs."""

from __future__ import annotations

from typing import Any

from . import protocol
from .browsers import Browser
from .page_session import Page

DETECT_LIMIT_S = 60.0


def detect(browser: Browser, adapter: str = "auto") -> dict[str, Any]:
    """Start ``browser`` once and ask it; JSON-serialisable.

    Keys: key, name, version, user_agent, cross_origin_isolated, hardware_concurrency, wasm (features), webgpu (available, adapter,
    features, limits, software_adapter: None where the browser hides it), webnn (available, devices by type with operators or error).
    Raises LaunchError where it does not start, connect or answer.
    """
    with Page(browser, adapter=adapter) as page:
        reply, _ = page.ask(protocol.Detect(), protocol.Facts, "detection", DETECT_LIMIT_S)
    return {"key": browser.key, "name": browser.name, "version": browser.version, **reply.facts}
