"""Keeps one model open in a page and runs requests on it, with recovery: what the platform's requests share."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ..errors import LaunchError
from ..platforms.browser_platform import BrowserPlatform
from ..platforms.registry import platform as registered
from .browsers import Browser
from .choices import Choice, Place, choose_here, simulated_choices, switches_of, wgsl_choices
from .configuration import Configuration
from .errors import ShardingError, WebPlatformError, WebRuntimeError, from_launch_error
from .host import LivePage, PageHost, best_platform, missing
from .limits import TooLargeError, check_adapter, check_threshold
from .low_bit_model import LowBitModel
from .metrics import Metrics
from .recovery import Degradation, Options, Plan, Recovery
from .served_model import OnProgress, OpenRequest, PageModel, ServedModel
from .simulation import SimulatedModel
from .web_model import WGSL, WebModel

Result = TypeVar("Result")

IN_FLIGHT = 2  # the page works on one while the next is on its way
MOST_ATTEMPTS = 12
SIMULATED = "simulation"
_names = itertools.count(1)


@dataclass(frozen=True)
class Opened:
    served: ServedModel
    plan: Plan
    live: LivePage | None  # None in a simulation
    choices: Mapping[str, Choice]  # by the names of Switches


class Runner:
    """``browsers`` are those that may be used, the first one first; none of them for a simulation. Safe to use from several threads."""

    def __init__(
        self,
        model: WebModel,
        config: Configuration,
        platform: str,
        browsers: Sequence[Browser],
        host: PageHost | None,
        recovery: Recovery,
        metrics: Metrics,
        *,
        detect: bool,
        timeout_s: float,
    ) -> None:
        self._model, self._config, self._host = model, config, host
        self._browsers = {browser.key: browser for browser in browsers}
        self._recovery, self._metrics = recovery, metrics
        self._detect, self._timeout_s = detect, timeout_s
        self._asked_platform = platform
        first = next(iter(self._browsers), SIMULATED)
        precision = "auto" if config.precision is None else _precision(config.precision)
        self.plan = Plan(platform, first, precision, config.batch_size, config.context_length)
        self.degradations: list[Degradation] = []
        self._lock = threading.RLock()  # guards plan, degradations and _opened, also while they change
        self._opened: Opened | None = None
        self._closed = False
        self._slots = threading.Semaphore(IN_FLIGHT)
        self._pending = 0
        self._pending_lock = threading.Lock()

    @property
    def provenance(self) -> Literal["measured", "simulated"]:
        """Of every time that is told, also before a model is open."""
        return SimulatedModel.provenance if self._host is None else PageModel.provenance

    @property
    def opened(self) -> Opened | None:
        return self._opened

    def open(self, on_progress: OnProgress = lambda progress: None) -> Opened:
        """The open model, after whatever recovery that took."""
        return self.execute(lambda opened: opened, rows=1, on_progress=on_progress)

    def execute(self, work: Callable[[Opened], Result], rows: int, on_progress: OnProgress = lambda progress: None) -> Result:
        """``work`` on the open model, again after each recovery, until it succeeds. Raises WebPlatformError where that ends."""
        retries = 0
        causes: list[str] = []
        with self._slot():
            for _ in range(MOST_ATTEMPTS):
                opened = None
                plan = self.plan
                try:
                    opened = self._ensure(on_progress)
                    return work(opened)
                except LaunchError as error:
                    causes.append(f"{plan.platform} in {plan.browser}: {error}")
                    if self._recover(error, opened, plan, retries, rows, causes):
                        retries = retries + 1 if self.plan == plan else 0
        raise WebRuntimeError(
            f"It failed {MOST_ATTEMPTS} times in a row, last: {causes[-1]}", details={"causes": causes}, severity="fatal"
        )

    def close(self) -> None:
        """Close the model; its page stays with the host."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
            if opened and (opened.live is None or opened.live.healthy):
                opened.served.close()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Backpressure: few requests are with the page, the others wait here; beyond ``max_pending`` they are refused."""
        with self._pending_lock:
            if self._pending >= self._config.max_pending:
                raise WebRuntimeError(
                    f"{self._pending} requests wait already, the most that max_pending allows.",
                    details={"max_pending": self._config.max_pending},
                    severity="warning",
                    recovery_actions=("Wait for some of them, or raise max_pending.",),
                )
            self._pending += 1
        try:
            with self._slots:
                yield
        finally:
            with self._pending_lock:
                self._pending -= 1

    def _ensure(self, on_progress: OnProgress) -> Opened:
        with self._lock:
            if self._closed:
                raise WebRuntimeError("This platform is closed.", recovery_actions=("Make a new UnifiedWebPlatform.",))
            if self._opened and (self._opened.live is None or not self._opened.live.discarded):
                return self._opened
            started = time.perf_counter()
            self._opened = self._open_simulation(on_progress) if self._host is None else self._open_in_page(on_progress)
            ended = time.perf_counter()
            self._metrics.span("load", started, ended, platform=self.plan.platform, browser=self.plan.browser)
            if self._metrics.initialization_ms is None:
                self._metrics.initialization_ms = (ended - started) * 1e3
            return self._opened

    def _open_simulation(self, on_progress: OnProgress) -> Opened:
        platform = "wasm" if self.plan.platform == "auto" else self.plan.platform
        precision = "float32" if self.plan.precision == "auto" else self.plan.precision
        self.plan = replace(self.plan, platform=platform, precision=precision)
        request = OpenRequest(self._model, platform, precision, self._config.threads)  # type: ignore[arg-type]
        return Opened(SimulatedModel(request, on_progress), self.plan, None, simulated_choices())

    def _open_in_page(self, on_progress: OnProgress) -> Opened:
        assert self._host is not None
        browsers = [self._browsers[self.plan.browser], *(b for b in self._browsers.values() if b.key != self.plan.browser)]
        if self.degradations:  # a plan that was chosen names its browser
            browsers = browsers[:1]
        live = self._host.acquire(browsers, self.plan.platform, self._detect)
        self.plan = self._settled(live)
        platform = registered(self.plan.platform)
        assert isinstance(platform, BrowserPlatform)
        software = self._config.adapter == "software" and self.plan.platform == "webgpu"
        engine = self._engine(self.plan)
        choices = wgsl_choices(self._config, live.page.kept) if engine == WGSL else self._choices(live)
        request = OpenRequest(
            self._model,
            self.plan.platform,  # type: ignore[arg-type]
            self.plan.precision,
            self._config.threads,
            switches_of(choices),
            self._timeout_s,
            platform.session_options("software" if software else "default"),
            self.plan.context_length,
            self._config.kv_cache_bits,
            self._config.memory_threshold_mb,
        )
        if engine == WGSL:
            return Opened(LowBitModel(live.page, request, on_progress), self.plan, live, choices)
        folder, graphs = self._model.graphs(self.plan.precision, lambda step: None)
        check_threshold(graphs, self._config.memory_threshold_mb, self.plan.precision)
        if self.plan.platform == "webgpu":
            check_adapter(folder, graphs, live.facts.get("webgpu", {}).get("limits"))
        served = PageModel(live.page, f"model-{next(_names)}", request, on_progress)
        return Opened(served, self.plan, live, choices)

    def _choices(self, live: LivePage) -> dict[str, Choice]:
        plan = self.plan
        adapter = live.facts.get("webgpu") if plan.platform == "webgpu" else None
        place = Place(plan.platform, live.key, adapter, plan.precision, live.page.kept)
        return choose_here(self._config, self._model.model_class, place)

    def _engine(self, plan: Plan) -> str:
        return self._model.engine(plan.platform, plan.precision)

    def _settled(self, live: LivePage) -> Plan:
        """The plan with what was left open decided by what the live browser said."""
        plan = replace(self.plan, browser=live.key if live.key in self._browsers else self.plan.browser)
        if plan.platform == "auto":
            plan = replace(plan, platform=best_platform(live.facts) if self._detect else "wasm")
        if plan.precision == "auto":
            adapter = live.facts.get("webgpu", {}) if plan.platform == "webgpu" else {}
            half = adapter.get("software_adapter") is False and "shader-f16" in adapter["features"]
            plan = replace(plan, precision="float16" if half else "float32")
        return plan

    def _recover(
        self, error: LaunchError, opened: Opened | None, plan: Plan, retries: int, rows: int, causes: list[str]
    ) -> bool:
        """Make the next plan and close what failed; whether that was done here, or by another request before. Raises the platform's
        error where recovery ends."""
        with self._lock:
            if opened is not None and (self._opened is not opened or (opened.live and opened.live.discarded)):
                return False  # another request saw the same failure first
            self._metrics.count("failures", error.error_class)
            self._opened = None
            plan = self.plan if self.plan.platform != "auto" else plan
            rows = 1 if self._engine(plan) == WGSL else rows  # one after the other: fewer a pass would save nothing
            step = self._recovery.after(plan, error, retries, rows, self._options(opened))
            if self._host:
                self._host.discard()  # whatever failed, nothing of it is trusted again
            if step is None:
                raise self._final(error, plan, causes) from error
            self.plan, done = step
            self.degradations.append(done)
            self._metrics.count("recoveries", done.action)
            return True

    def _options(self, opened: Opened | None) -> Options:
        live = opened.live if opened and opened.live else self._host.live if self._host else None
        facts = live.known_facts if live else None

        def lacks(platform: str) -> str | None:
            return missing(platform, facts) if facts and platform in facts else None

        tried = [done.before for done in self.degradations if done.action == "browser"] + [self.plan.browser]
        others = tuple(key for key in self._browsers if key not in tried)
        return Options(self._model.precisions, lacks, others, self._model.generates)

    def _final(self, error: LaunchError, plan: Plan, causes: list[str]) -> WebPlatformError:
        details = {"platform": plan.platform, "browser": plan.browser, "precision": plan.precision, "causes": causes}
        if isinstance(error, TooLargeError):
            return ShardingError(
                str(error),
                details=details,
                recovery_actions=("Set a lower precision.", "Use platform='wasm', which has no such limit."),
            )
        return from_launch_error(error, **details)


def _precision(bits: int) -> str:
    from .web_model import BITS

    return BITS[bits]
