"""What is done when a page, its browser or its device fails. The four modes differ as they are named:

abort     nothing: the first failure is raised
retry     the same again in a new browser, after a growing pause, and never anything lesser
fallback  at once something lesser: fewer rows a pass, a lower precision, a shorter context, the next engine (webgpu, webnn, wasm)
auto      once the same again where that may help, then something lesser

A failure that would only repeat itself (a missing operator, a missing WebNN) is never retried. A combination of browser and engine that
keeps failing is left alone for a while (a circuit breaker; Nygard, Release It!, 2007).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import LaunchError

ENGINE_ORDER = ("webgpu", "webnn", "wasm")
RETRIES = {"abort": 0, "retry": 3, "fallback": 0, "auto": 1}
BACKOFF_S = (0.1, 0.5, 2.0)
NEVER_RETRIED = ("unsupported", "out_of_memory")
LEAST_CONTEXT = 128
NEVER_UNASKED = ("int3", "int2")  # lose too much to be a way out of a failure
WIDEST_FIRST = ("float32", "float16", "int8", "int4", "int3", "int2")


@dataclass(frozen=True)
class Plan:
    """What runs where. ``batch_size``: most rows in one pass; ``context_length``: most tokens, None for the model's own."""

    platform: str
    browser: str
    precision: str
    batch_size: int
    context_length: int | None = None


@dataclass(frozen=True)
class Options:
    """What could be had instead. ``precisions`` gives those that a platform runs, widest first; ``missing`` the reason why the
    browser has a platform not, or None; ``browsers`` are further ones that may be tried."""

    precisions: Callable[[str], tuple[str, ...]]
    missing: Callable[[str], str | None]
    browsers: tuple[str, ...]
    generates: bool


@dataclass(frozen=True)
class Degradation:
    """A step down: what changed, why, and what was left out on the way."""

    action: str  # retry, batch_size, precision, context_length, platform, browser
    before: Any
    after: Any
    because: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class CircuitBreaker:
    """Opens for ``pause_s`` after ``failures`` within ``window_s``, each combination of browser and platform by itself."""

    def __init__(
        self, failures: int = 5, window_s: float = 60.0, pause_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._window_s, self._pause_s, self._clock = failures, window_s, pause_s, clock
        self._failures: dict[tuple[str, str], deque[float]] = {}

    def failed(self, plan: Plan) -> None:
        times = self._failures.setdefault((plan.browser, plan.platform), deque(maxlen=self._most))
        times.append(self._clock())

    def open_for_s(self, plan: Plan) -> float:
        """How long it stays open; 0 where it is closed."""
        times = self._failures.get((plan.browser, plan.platform), deque())
        if len(times) < self._most or times[-1] - times[0] > self._window_s:
            return 0.0
        return max(0.0, times[-1] + self._pause_s - self._clock())


class Recovery:
    """Decides; the platform does it. ``sleep`` is what waits between retries."""

    def __init__(self, mode: str, breaker: CircuitBreaker | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.mode = mode
        self.breaker = breaker or CircuitBreaker()
        self._sleep = sleep

    def after(
        self, plan: Plan, error: LaunchError, retries: int, rows: int, options: Options
    ) -> tuple[Plan, Degradation] | None:
        """The next plan, and what it is; None where nothing is left, and then ``error`` is the caller's. ``retries`` is how often this
        plan was tried again already, ``rows`` how many the failed pass had. Waits before a retry."""
        self.breaker.failed(plan)
        paused_s = self.breaker.open_for_s(plan)
        if retries < RETRIES[self.mode] and error.error_class not in NEVER_RETRIED and not paused_s:
            self._sleep(BACKOFF_S[min(retries, len(BACKOFF_S) - 1)])
            return plan, Degradation("retry", None, retries + 1, str(error))
        if self.mode in ("abort", "retry"):
            return None
        why = str(error) + (f" It failed too often and is left alone for {paused_s:.0f} s." if paused_s else "")
        return self._lesser(plan, error, why, rows, options)

    def _lesser(self, plan: Plan, error: LaunchError, why: str, rows: int, options: Options) -> tuple[Plan, Degradation] | None:
        if error.error_class == "browser_start":
            return self._next_browser(plan, why, options)
        if error.error_class == "out_of_memory" and (smaller := self._smaller(plan, why, rows, options)):
            return smaller
        return self._next_platform(plan, why, options) or self._next_browser(plan, why, options)

    def _smaller(self, plan: Plan, why: str, rows: int, options: Options) -> tuple[Plan, Degradation] | None:
        """Less memory on the same engine."""
        if min(rows, plan.batch_size) > 1:
            half = min(rows, plan.batch_size) // 2
            return replace(plan, batch_size=half), Degradation("batch_size", plan.batch_size, half, why)
        usable = options.precisions(plan.platform)
        narrower = usable[usable.index(plan.precision) + 1 :] if plan.precision in usable else ()
        narrower = tuple(name for name in narrower if name not in NEVER_UNASKED)
        if narrower:
            return replace(plan, precision=narrower[0]), Degradation("precision", plan.precision, narrower[0], why)
        if options.generates and plan.context_length is not None and plan.context_length > LEAST_CONTEXT:
            half = max(LEAST_CONTEXT, plan.context_length // 2)
            return replace(plan, context_length=half), Degradation("context_length", plan.context_length, half, why)
        return None

    def _next_platform(self, plan: Plan, why: str, options: Options) -> tuple[Plan, Degradation] | None:
        for platform in ENGINE_ORDER[ENGINE_ORDER.index(plan.platform) + 1 :]:
            usable = options.precisions(platform)
            if missing := options.missing(platform) or (None if usable else "it runs this model at no precision"):
                why += f" ({platform} was passed over: {missing})"
                continue
            precision = _nearest(plan.precision, usable)
            step = replace(plan, platform=platform, precision=precision)
            if self.breaker.open_for_s(step):
                continue
            before, after = (f"{each.platform} {each.precision}" for each in (plan, step))
            return step, Degradation("platform", before, after, why)
        return None

    def _next_browser(self, plan: Plan, why: str, options: Options) -> tuple[Plan, Degradation] | None:
        for browser in options.browsers:
            step = replace(plan, browser=browser)
            if not self.breaker.open_for_s(step):
                return step, Degradation("browser", plan.browser, browser, why)
        return None


def _nearest(precision: str, usable: tuple[str, ...]) -> str:
    """The narrowest of ``usable`` that is no narrower than ``precision``, or else the widest, also where none is decided yet (auto);
    they come widest first."""
    if precision not in WIDEST_FIRST:
        return usable[0]
    wide_enough = [name for name in usable if WIDEST_FIRST.index(name) <= WIDEST_FIRST.index(precision)]
    return wide_enough[-1] if wide_enough else usable[0]
