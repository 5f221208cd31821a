"""``PlatformDetector``: what a live browser is and has, and the profile that follows. Nothing is assumed from a name."""

from __future__ import annotations

from typing import Any

from ..errors import LaunchError
from . import protocol
from .attach import AttachedPage
from .bridge import LOOPBACK
from .capabilities import DETECT_LIMIT_S, detect
from .errors import from_launch_error
from .host import best_platform, candidates, missing
from .limits import MB

WEB_PLATFORMS = ("webgpu", "webnn", "wasm")


class PlatformDetector:
    """``browser`` as of UnifiedWebPlatform: a key, a path, ``auto`` (the first that starts), or ``attach`` for one that a person opens."""

    def __init__(self, browser: str = "auto", *, adapter: str = "auto", listen: str = LOOPBACK, wait_s: float = 300.0) -> None:
        self._attach = browser == "attach"
        self._browsers = () if self._attach else candidates(browser, "auto")
        self._adapter, self._listen, self._wait_s = adapter, listen, wait_s

    def detect(self) -> dict[str, Any]:
        """Keys: key, name, version, user_agent, mobile, hardware_concurrency, device_memory_gb, cross_origin_isolated, wasm, webgpu, webnn
        (features, limits and operators, or the reason), and ``profile``. Raises WebPlatformError where no browser answers."""
        try:
            facts = self._ask()
        except LaunchError as error:
            raise from_launch_error(error) from error
        return {**facts, "profile": profile(facts)}

    def _ask(self) -> dict[str, Any]:
        if self._attach:
            with AttachedPage(listen=self._listen, wait_s=self._wait_s) as page:
                reply, _ = page.ask(protocol.Detect(), protocol.Facts, "detection", DETECT_LIMIT_S)
                return {"key": page.browser.key, "name": page.browser.name, "version": page.browser.version, **reply.facts}
        *others, last = self._browsers
        for browser in others:
            try:
                return detect(browser, self._adapter)
            except LaunchError:
                continue  # the next one may start; the last one's failure is raised
        return detect(last, self._adapter)


def profile(facts: dict[str, Any]) -> dict[str, Any]:
    """What to use in a browser with these facts, each with the fact that it follows from."""
    platform = best_platform(facts)
    adapter, wasm = facts["webgpu"], facts["wasm"]
    half = platform == "webgpu" and "shader-f16" in adapter["features"]
    reasons = [f"{name}: {missing(name, facts) or 'available'}" for name in WEB_PLATFORMS]
    if adapter["available"] and adapter["software_adapter"] is True:
        reasons.append("WebGPU runs on a software adapter, which is slower than wasm on the same cores.")
    limits = adapter.get("limits", {})
    return {
        "platform": platform,
        "precision_bits": 16 if half else 32,
        "threads": min(facts["hardware_concurrency"], 4) if wasm["threads"] else 1,
        "largest_binding_mb": limits["maxStorageBufferBindingSize"] / MB if limits else None,
        "subgroups": "subgroups" in adapter.get("features", []),
        "timestamps": "timestamp-query" in adapter.get("features", []),
        "reasons": reasons,
    }
