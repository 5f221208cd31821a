"""The page that models share: which browser it is, what it offers, and a new one where the old one failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..errors import LaunchError, UnavailableError, UserError
from ..platforms.base import Unavailable
from ..platforms.browser_platform import BrowserPlatform
from ..platforms.registry import platform as registered
from . import protocol
from .browsers import KNOWN, Browser, find_browser, find_browsers
from .capabilities import DETECT_LIMIT_S
from .errors import BrowserCompatibilityError, ConfigurationError
from .page_session import Page
from .shaped_link import kept_runtime

# The likeliest first; what a browser really has is asked of it.
_ORDER = ("chrome", "edge", "chromium", "chromium-headless-shell", "firefox", "safari", "webkitgtk")
_ORDER_WEBNN = ("chrome", "edge", "chromium-headless-shell", "chromium", "firefox", "safari", "webkitgtk")

# Every browser has it, and its choices ask for nothing of the adapter: nobody waits for what the page says.
UNCONDITIONAL = "wasm"


@dataclass
class LivePage:
    """An open page and what it says of itself (the keys of ``capabilities.detect``). ``discarded``: closed on purpose."""

    page: Page
    detection: Future[dict[str, Any]]
    allow_eval: bool
    discarded: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """Waits for them where they are still to come. Raises LaunchError where the page failed meanwhile."""
        return self.detection.result()

    @property
    def known_facts(self) -> dict[str, Any] | None:
        """Them if they have come."""
        here = self.detection.done() and self.detection.exception() is None
        return self.detection.result() if here else None

    @property
    def key(self) -> str:
        return self.page.browser.key

    @property
    def healthy(self) -> bool:
        return not self.discarded and self.page.bridge.broken is None and self.page.process.failure() is None


def candidates(browser: str, platform: str) -> tuple[Browser, ...]:
    """The browsers that may run it, one where it is named. Raises ConfigurationError for a name that is none, BrowserCompatibilityError
    where it is not installed, with the command that installs it."""
    if browser != "auto":
        try:
            return (find_browser(browser),)
        except UnavailableError as missing:
            raise BrowserCompatibilityError(
                missing.reason, details={"browser": browser}, recovery_actions=(missing.remedy,)
            ) from missing
        except UserError as unknown:
            raise ConfigurationError(str(unknown), details={"rule": "browser"}) from unknown
    found = find_browsers()
    order = _ORDER_WEBNN if platform == "webnn" else _ORDER
    here = tuple(entry for key in order if isinstance(entry := found[key], Browser))
    if not here:
        raise BrowserCompatibilityError(
            "No browser is installed.",
            details={"looked_for": list(KNOWN)},
            recovery_actions=("Run: ipfs-accelerate browsers --install",),
        )
    return here


def missing(platform: str, facts: dict[str, Any]) -> str | None:
    """Why a browser with these facts does not have the platform; None where it does."""
    found = registered(platform)
    assert isinstance(found, BrowserPlatform)
    offer = found.offered(facts)
    return offer.reason if isinstance(offer, Unavailable) else None


def best_platform(facts: dict[str, Any]) -> str:
    """WebGPU on a real GPU, else WebNN, else wasm: a software adapter is slower than the CPU path that it runs on."""
    if missing("webgpu", facts) is None and facts["webgpu"]["software_adapter"] is not True:
        return "webgpu"
    return "webnn" if missing("webnn", facts) is None else "wasm"


class PageHost:
    """Opens the page when it is first needed and again after it was discarded. ``open_page`` replaces the start of a browser, for a page
    that a person opens. With ``keep`` the browser has the kept profile of that name. Safe to use from several threads."""

    def __init__(self, adapter: str = "auto", open_page: Callable[[bool], Page] | None = None, keep: str | None = None) -> None:
        self._adapter, self._keep = adapter, keep
        self._open_page = open_page
        self._lock = threading.RLock()
        self.live: LivePage | None = None
        self.starts = 0

    @property
    def attached(self) -> bool:
        return self._open_page is not None

    def acquire(self, browsers: Sequence[Browser], platform: str, detect: bool = True) -> LivePage:
        """The page, in the first of ``browsers`` that has ``platform`` (``auto``: the first that starts). Raises LaunchError: what was
        wrong with the last one that was tried."""
        with self._lock:
            live = self.live
            fits = live and live.healthy and (self.attached or live.key in [browser.key for browser in browsers])
            if live and fits and (platform != "webnn" or live.allow_eval) and self._lacks(live, platform, detect) is None:
                return live
            error: LaunchError | None = None
            for browser in browsers:
                self.discard()
                try:
                    live = self._start(browser, platform, detect)
                except LaunchError as failed:
                    error = failed
                    continue
                reason = self._lacks(live, platform, detect)
                if reason is None:
                    return live
                error = LaunchError("unsupported", reason)
            assert error is not None
            raise error

    def discard(self) -> None:
        """Close the page and its browser; the next ``acquire`` starts anew."""
        with self._lock:
            if self.live:
                self.live.discarded = True
                self.live.page.close()
                self.live = None

    def _start(self, browser: Browser, platform: str, detect: bool) -> LivePage:
        self.starts += 1
        allow_eval = platform in ("webnn", "auto")
        page = self._open_page(allow_eval) if self._open_page else self._open(browser, allow_eval)
        detection: Future[dict[str, Any]] = Future()

        def ask() -> None:
            try:
                facts = {"name": page.browser.name, "version": page.browser.version}
                if detect:
                    facts |= page.ask(protocol.Detect(), protocol.Facts, "detection", DETECT_LIMIT_S)[0].facts
                detection.set_result(facts)
            except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the facts
                detection.set_exception(error)

        if platform == UNCONDITIONAL and detect:  # a model may load meanwhile
            threading.Thread(target=ask, name="detection", daemon=True).start()
        else:
            ask()
            if detection.exception() is not None:
                page.close()  # nothing that was started may stay
                detection.result()
        self.live = LivePage(page, detection, allow_eval)
        return self.live

    def _open(self, browser: Browser, allow_eval: bool) -> Page:
        try:
            return Page(browser, adapter=self._adapter, allow_eval=allow_eval, keep=self._keep, wrap=kept_runtime)
        except UserError as in_use:
            raise ConfigurationError(str(in_use), details={"rule": "keep_profile"}) from in_use

    @staticmethod
    def _lacks(live: LivePage, platform: str, detect: bool) -> str | None:
        if not detect or platform == UNCONDITIONAL:
            return None
        if failed := live.detection.exception():  # where it was opened for wasm; a new page may do better
            return str(failed)
        return missing(platform, live.facts) if platform != "auto" else None
