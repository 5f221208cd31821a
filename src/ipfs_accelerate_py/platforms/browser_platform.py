"""What wasm, WebGPU and WebNN share: they live in browsers, and one start of a browser tells what it offers to all three."""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import LaunchError, UserError, nearest
from ..spec import Workload
from .base import Available, Device, OpenOptions, Platform, Unavailable
from .exported import exported_unsupported

if TYPE_CHECKING:
    from ..web.page_session import PageSession
    from ..web.protocol import Provider

ENGINE = "onnxruntime-web"


@functools.cache
def browser_facts() -> dict[str, dict[str, Any] | Unavailable]:
    """What each browser of this machine offers, or why it cannot say. Starts each found one once per Python process."""
    from ..web.browsers import find_browsers
    from ..web.capabilities import detect

    facts: dict[str, dict[str, Any] | Unavailable] = {}
    for key, browser in find_browsers().items():
        if isinstance(browser, Unavailable):
            facts[key] = browser
            continue
        try:
            facts[key] = detect(browser)
        except LaunchError as error:
            facts[key] = Unavailable(f"{browser.name} {browser.version} is installed but failed: {error}")
    return facts


class BrowserPlatform(Platform):
    """``devices`` of a probe are one per browser, named by the browser's key, which is also in its ``facts``. ``device_names`` are the
    devices that a target may name within a browser."""

    name: ClassVar[Provider]  # type: ignore[misc]  # a str that is also the provider's name in the page
    engines = (ENGINE,)
    device_names: ClassVar[tuple[str, ...]] = ("default",)
    remedy: ClassVar[str] = ""

    @abstractmethod
    def offered(self, facts: dict[str, Any]) -> str | Unavailable:
        """A description of the device that a browser with these facts has for this platform, or why it has none."""

    @abstractmethod
    def session_options(self, device: str) -> dict[str, Any]:
        """Arguments of PageSession for a device of ``device_names``."""

    def probe(self) -> Available | Unavailable:
        devices: list[Device] = []
        missing: dict[str, Unavailable] = {}
        found = browser_facts()
        for key, facts in found.items():
            offer = facts if isinstance(facts, Unavailable) else self.offered(facts)
            if isinstance(offer, Unavailable):
                missing[key] = offer
            else:
                assert isinstance(facts, dict)
                own = {name: facts[name] for name in ("user_agent", "cross_origin_isolated", "hardware_concurrency")}
                description = f"{facts['name']} {facts['version']} · {offer}"
                devices.append(Device(key, description, {"browser": key, **own, self.name: facts[self.name]}))
        reasons = {key: {"reason": value.reason, "remedy": value.remedy} for key, value in missing.items()}
        if devices:
            return Available(tuple(devices), self.engines, {"unavailable_browsers": reasons})
        # Browsers that are here say more than those that are not.
        started = [value for key, value in missing.items() if not isinstance(found[key], Unavailable)] or list(missing.values())
        return Unavailable(" ".join(dict.fromkeys(value.reason for value in started)), started[0].remedy or self.remedy)

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if engine != ENGINE:
            return f"{self.name} runs {ENGINE}, not {engine}."
        return exported_unsupported(workload, ENGINE)

    def open(self, workload: Workload, device: str, options: OpenOptions) -> PageSession:
        from ..web.browsers import find_browser
        from ..web.page_session import PageSession

        if device not in self.device_names:
            raise nearest(device, self.device_names, f"device of {self.name}")
        if options.browser is None:
            raise UserError(f"{self.name} runs in a browser: name one.")
        return PageSession(find_browser(options.browser), self.name, workload, options, **self.session_options(device))
