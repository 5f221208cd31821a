"""The page that models share: who waits for what it says of itself, and what happens where it says nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web.browsers import Browser
from ipfs_accelerate_py.web.host import PageHost

BROWSER = Browser("chromium", "Chromium", "chromium", "1", Path())
FACTS = {"wasm": {}, "webgpu": {"available": False, "reason": "requestAdapter() gives no adapter"}}


class SlowPage:
    """Answers ``Detect`` when ``answer`` is set, with ``facts`` or by raising them."""

    def __init__(self, facts: Any = FACTS) -> None:
        self.browser, self.facts = BROWSER, facts
        self.answer, self.asked, self.closed = threading.Event(), threading.Event(), False
        self.bridge = SimpleNamespace(broken=None)
        self.process = SimpleNamespace(failure=lambda: None)

    def ask(self, *_: Any) -> tuple[Any, dict]:
        self.asked.set()
        assert self.answer.wait(30)
        if isinstance(self.facts, LaunchError):
            raise self.facts
        return SimpleNamespace(facts=self.facts), {}

    def close(self) -> None:
        self.closed = True


def host_of(page: SlowPage) -> PageHost:
    return PageHost(open_page=lambda allow_eval: page)  # type: ignore[arg-type, return-value]


def test_wasm_does_not_wait_for_what_the_page_says():
    """The page is there at once, also for a second model, and its facts when they come."""
    page = SlowPage()
    host = host_of(page)
    live = host.acquire([BROWSER], "wasm")
    assert host.acquire([BROWSER], "wasm") is live
    assert page.asked.wait(30)
    assert live.known_facts is None
    page.answer.set()
    assert live.facts == {"name": "Chromium", "version": "1", **FACTS}
    assert live.known_facts == live.facts


def test_a_page_that_fails_meanwhile_is_told_to_who_asks():
    """Nobody who needs no facts is disturbed, and recovery takes them for unknown."""
    page = SlowPage(LaunchError("browser_crashed", "it is gone"))
    live = host_of(page).acquire([BROWSER], "wasm")
    page.answer.set()
    with pytest.raises(LaunchError, match="it is gone"):
        _ = live.facts
    assert live.known_facts is None
    assert not page.closed


def test_webgpu_waits_and_is_refused_with_the_browser_s_own_reason():
    """A model gets nothing before that: the page has to have an adapter."""
    page = SlowPage()
    page.answer.set()
    with pytest.raises(LaunchError, match="gives no adapter") as raised:
        host_of(page).acquire([BROWSER], "webgpu")
    assert raised.value.error_class == "unsupported"


def test_a_page_that_fails_while_it_is_waited_for_is_closed():
    """Nothing that was started stays."""
    page = SlowPage(LaunchError("timeout", "detection went over its limit"))
    page.answer.set()
    with pytest.raises(LaunchError, match="over its limit"):
        host_of(page).acquire([BROWSER], "webgpu")
    assert page.closed


@pytest.mark.parametrize("platform", ["webgpu", "auto"])
def test_a_page_that_failed_to_say_is_replaced_for_who_needs_it(platform):
    """Wasm ran on without the facts; the next model gets them of a new page, and not the old failure for ever."""
    adapter = dict.fromkeys(("vendor", "architecture", "device", "description"), "a GPU")
    found = {"wasm": {}, "webgpu": {"available": True, "software_adapter": False, **adapter}}
    pages = [SlowPage(LaunchError("timeout", "detection went over its limit")), SlowPage(found)]
    for page in pages:
        page.answer.set()
    left = iter(pages)
    host = PageHost(open_page=lambda allow_eval: next(left))  # type: ignore[arg-type, return-value]
    assert host.acquire([BROWSER], "wasm").detection.exception(30) is not None
    live = host.acquire([BROWSER], platform)
    assert live.page is pages[1]  # type: ignore[comparison-overlap]
    assert live.facts["webgpu"]["available"]
    assert pages[0].closed
