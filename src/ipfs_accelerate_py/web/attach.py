"""A page in a browser that a person opens: by a printed address with a one-time code in it, or its QR code, also on another machine."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ..errors import LaunchError
from .bridge import LOOPBACK, Bridge
from .browser_process import BrowserProcess
from .browsers import KNOWN, Browser
from .page_session import Page
from .shaped_link import kept_runtime

# Words of a user agent, the more special first: Edge names Chrome too, and Chrome Safari.
_NAMES = (
    ("Edg", "edge"),
    ("Firefox", "firefox"),
    ("Chrome", "chrome"),
    ("CriOS", "chrome"),
    ("FxiOS", "firefox"),
    ("Version", "safari"),
)


class PersonsBrowser:
    """Stands where a BrowserProcess would: a browser that is not ours is neither watched nor stopped."""

    connected = True

    def failure(self) -> LaunchError | None:
        return None

    def poll(self) -> int | None:
        return None

    def wait(self, timeout_s: float | None = None) -> int | None:
        return None

    def process_ids(self) -> list[int]:
        return []

    def stop(self) -> None:
        pass


class AttachedPage(Page):
    """Waits ``wait_s`` for the page to be opened. ``tell`` gets the sentence with the address, once. ``listen`` is Bridge's."""

    def __init__(
        self,
        *,
        listen: str = LOOPBACK,
        wait_s: float = 300.0,
        allow_eval: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.process: BrowserProcess = PersonsBrowser()  # type: ignore[assignment]
        self._kept, self._profile = None, None  # a person's profile is theirs
        self._sharing = threading.Lock()
        with ExitStack() as opened:  # the port must not stay taken
            self.bridge = opened.enter_context(Bridge(allow_eval=allow_eval, listen=listen, wrap=kept_runtime))
            tell(invitation(self.bridge.url, listen))
            deadline = time.monotonic() + wait_s
            while not self.bridge.connected(0.2):  # in short pieces, so that Ctrl-C ends the wait
                if time.monotonic() > deadline:
                    raise LaunchError("browser_start", f"Nobody opened {self.bridge.origin} in {wait_s:g} s.")
            self._opened = opened.pop_all()
        self.browser = browser_of(self.bridge.user_agent)

    def _crash(self, told: str) -> LaunchError:
        return LaunchError("browser_crashed", f"{told} The tab in {self.browser.name} was closed or left; open a new address.")


def invitation(url: str, listen: str) -> str:
    """What a person reads: the address, its QR code where another machine may open it, and what that allows."""
    lines = [f"Open this address in the browser: {url}", "It admits one page, once."]
    if listen != LOOPBACK:
        lines += [
            qr_code(url),
            "It is not encrypted: use it only in a network that you trust. Browsers give WebGPU, WebNN and threads only to "
            "addresses that they hold for secure, and this one is none: the page runs wasm in one thread.",
        ]
    return "\n".join(lines)


def qr_code(text: str) -> str:
    """The QR code of ``text`` in characters, for a terminal."""
    import qrcode

    code = qrcode.QRCode(border=2)
    code.add_data(text)
    out = io.StringIO()
    code.print_ascii(out=out, invert=True)
    return out.getvalue()


def browser_of(user_agent: str) -> Browser:
    """Name and version as the browser states them: its key is only a likely one, as user agents imitate each other."""
    for word, key in _NAMES:
        if found := re.search(rf"\b{word}\w*/(\d+[\d.]*)", user_agent):
            return Browser(key, KNOWN[key].name, KNOWN[key].kind, found[1], Path())
    return Browser("unknown", "an unknown browser", "unknown", "unknown", Path())
