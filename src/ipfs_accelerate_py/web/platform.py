"""``UnifiedWebPlatform``: a model in a real browser by one Python API, on WebGPU, WebNN or wasm."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from . import performance, requests
from .attach import AttachedPage
from .bridge import LOOPBACK
from .browsers import Browser
from .configuration import Configuration, Validation
from .configuration_rules import validate
from .errors import ConfigurationError, WebPlatformError
from .host import PageHost, candidates
from .metrics import Metrics
from .recovery import Recovery
from .requests import Token
from .runner import SIMULATED, Runner
from .served_model import OnProgress
from .web_model import WebModel

PLATFORMS = ("webgpu", "webnn", "wasm", "auto")
WEB_API_MODES = ("real", "simulation")
ATTACH = "attach"  # the browser that a person opens
TIMEOUT_S = 300.0  # software adapters compile shaders for minutes


class UnifiedWebPlatform:
    """A model in a browser. Use it as a context manager, or call ``close``; the browser ends with the Python process at the latest.

    Nothing starts before the first request, ``load`` or ``warm_up``. ``browser`` is a key of ``ipfs-accelerate browsers``, the path of an
    executable, ``auto``, or ``attach``: an address is printed that a person opens (``listen`` lets other machines open it). With
    ``auto_detect`` the open browser is asked what it has, before it gets anything (wasm, which all have, starts meanwhile); without it,
    what was named is tried as it is.
    ``recovery`` is one of abort, retry, fallback and auto (see ``web/recovery.py``). ``timeout_s`` limits each step in the page: loading,
    a pass, a token. ``configuration`` has the keys of ``web/configuration.py``.

    Raises ConfigurationError and ModelError for what cannot work, before a browser starts. Safe to use from several threads.
    """

    def __init__(
        self,
        model_name: str | None = None,
        model_type: Literal["text", "vision", "audio", "multimodal"] = "text",
        platform: Literal["webgpu", "webnn", "wasm", "auto"] = "auto",
        browser: str = "auto",
        web_api_mode: Literal["real", "simulation"] = "real",
        configuration: Mapping[str, Any] | None = None,
        auto_detect: bool = True,
        precision: int | str = "auto",
        recovery: Literal["auto", "fallback", "retry", "abort"] | None = None,
        timeout_s: float = TIMEOUT_S,
        *,
        listen: str = LOOPBACK,
        share_with: UnifiedWebPlatform | None = None,
    ) -> None:
        _one_of("platform", platform, PLATFORMS)
        _one_of("web_api_mode", web_api_mode, WEB_API_MODES)
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or timeout_s <= 0:
            raise ConfigurationError(
                f"timeout_s is a number of seconds above 0, not {timeout_s!r}.", details={"rule": "timeout_s"}
            )
        asked = dict(configuration or {})
        if precision != "auto":
            asked["precision"] = precision
        if recovery is not None:
            asked["error_recovery"] = recovery

        def named(config: Configuration) -> WebModel:
            return WebModel(model_name, model_type, size=config.size, weights=config.weights, truncate=config.truncate)

        self._validation, self.model = validate(asked, named, platform)
        self.config = self._validation.config
        if self.model.only_on_webgpu(self.config.precision):
            if web_api_mode == "simulation":
                raise ConfigurationError(
                    f"A simulation runs onnxruntime, which has no weights like these: {self.config.precision} bit.",
                    details={"rule": "simulation"},
                    recovery_actions=("Leave web_api_mode out, or set precision to 4, 8 or 32.",),
                )
            platform = "webgpu"
        self.timeout_s = float(timeout_s)
        self.metrics = Metrics()
        self._own_host = share_with is None
        self._host: PageHost | None
        self._browsers: tuple[Browser, ...]
        browsers: tuple[Browser, ...] = ()
        if web_api_mode == "simulation":
            self._host = None
        elif share_with is not None:
            self._host, browsers = share_with._host, share_with._browsers
        elif browser == ATTACH:
            self._host = PageHost(open_page=lambda allow_eval: AttachedPage(listen=listen, allow_eval=allow_eval))
            browsers = (Browser(ATTACH, "a browser that a person opens", "unknown", "unknown", Path()),)
        else:
            browsers = candidates(browser, platform)
            self._host = PageHost(self.config.adapter, keep=self.model.profile_name if self.config.keep_profile else None)
        self._browsers = browsers
        self.runner = Runner(
            self.model,
            self.config,
            platform,
            browsers,
            self._host,
            Recovery(self.config.error_recovery),
            self.metrics,
            detect=auto_detect,
            timeout_s=self.timeout_s,
        )
        if self._own_host and self._host:
            self._finalizer = weakref.finalize(self, self._host.discard)

    def __enter__(self) -> UnifiedWebPlatform:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def load(self, on_progress: OnProgress = lambda progress: None) -> dict[str, Any]:
        """Start the browser and open the model, unless they are; ``on_progress`` gets a Progress for each component as it comes along.

        Returns the ``loading`` part of ``get_performance_metrics``.
        """
        threading.Thread(target=self._import_early, daemon=True).start()
        opened = self.runner.open(on_progress)
        if opened.choices["precompilation"].on and not opened.served.compiled_ahead:
            requests.warm_up(self, 1)
        return performance.loading_metrics(self)

    def _import_early(self) -> None:
        """Python's imports overlap with the browser's start. What is wrong with the model is raised by whoever needs it first."""
        with contextlib.suppress(WebPlatformError):
            self.model.processor  # noqa: B018

    def warm_up(self, passes: int = 1) -> dict[str, Any]:
        """Run seeded example inputs, so that shaders are compiled and code is optimised before it counts: milliseconds of each pass."""
        return requests.warm_up(self, passes)

    def run_inference(self, inputs: Mapping[str, Any], *, max_new_tokens: int | None = None) -> dict[str, Any]:
        """``inputs`` by kind (text, image, audio, video): a value or a list of them, the batch. A text is a string; the others are paths,
        bytes, NumPy arrays or Pillow images.

        Returns ``success, result, metadata, performance``; ``docs/web-platform.md`` lists what is in them. Raises WebPlatformError.
        """
        return requests.run_inference(self, inputs, max_new_tokens)

    def stream(self, inputs: Mapping[str, Any], *, max_new_tokens: int | None = None) -> Iterator[Token]:
        """The tokens of one input as they are known; closing the iterator ends the generation after its next token.

        Raises ModelError for a model that does not generate and for a batch.
        """
        return requests.stream(self, inputs, max_new_tokens)

    def close(self) -> None:
        """Close the model, and the browser unless it is shared. Safe to call again."""
        self.runner.close()
        if self._own_host and self._host:
            self._host.discard()

    def open_beside(self, model_name: str, model_type: str, **options: Any) -> UnifiedWebPlatform:
        """Another model in the same page; options as of the constructor. It ends with this platform's browser."""
        return UnifiedWebPlatform(model_name, model_type, share_with=self, **options)  # type: ignore[arg-type]

    def validate_configuration(self) -> dict[str, Any]:
        """``valid, errors[{rule, message, severity, corrected_to}], auto_corrected, config``."""
        return self._validation.to_dict()

    @property
    def validation(self) -> Validation:
        return self._validation

    def get_browser_compatibility(self) -> dict[str, Any]:
        """What the open browser is and has; starts it if it does not run yet."""
        from .detector import profile

        if self._host is None:
            return {"browser": SIMULATED, "provenance": "simulated", "reason": "No browser runs in a simulation."}
        live = self._host.live
        if live is None or not live.healthy:
            self.runner.open()
            live = self._host.live
        assert live is not None
        return {"browser": live.key, **live.facts, "profile": profile(live.facts)}

    def get_performance_metrics(self) -> dict[str, Any]:
        """The times and sizes of this object so far; what is not known yet, or never here, is None. ``docs/web-platform.md`` lists them."""
        return performance.performance_metrics(self)

    def get_feature_usage(self) -> dict[str, Any]:
        """What is in use now, by what really opened; empty before that."""
        return performance.feature_usage(self)

    def profile_kernels(self, context_length: int = 128) -> dict[str, Any]:
        """Milliseconds of each kernel of a decoding step at that many tokens, by the GPU's own clock; also in ``get_performance_metrics``
        and at ``/metrics`` from then on.

        ``step`` has ``label, dispatches, ms`` (median over ``rounds``) and for matrix-vector products the ``bytes`` that they read; None
        with the ``reason`` where the engine or the adapter cannot time kernels. The cache of keys and values is empty afterwards.
        """
        if isinstance(context_length, bool) or not isinstance(context_length, int) or context_length < 1:
            raise ConfigurationError(
                f"context_length is a whole number of tokens above 0, not {context_length!r}.",
                details={"rule": "context_length"},
            )
        self.metrics.kernels = self.runner.execute(lambda opened: performance.kernels(opened, context_length), 1)
        return self.metrics.kernels

    def serve_metrics(self) -> str:
        """Serve Prometheus' text at the returned address, and a trace beside it at ``/trace.json``: for this machine's programs only."""
        self.runner.open()
        live = self._host.live if self._host else None
        if live is None:
            raise ConfigurationError("A simulation has no server that could show its metrics.", details={"rule": "simulation"})
        bridge = live.page.bridge
        bridge.site.texts["metrics"] = lambda: (performance.prometheus(self), "text/plain; version=0.0.4")
        bridge.site.texts["trace.json"] = lambda: (self.metrics.chrome_trace(self.runner.provenance), "application/json")
        return f"{bridge.origin}/metrics"

    def write_trace(self, path: str | Path) -> Path:
        """Write what was timed as a Chrome trace (chrome://tracing, ui.perfetto.dev)."""
        Path(path).write_text(self.metrics.chrome_trace(self.runner.provenance))
        return Path(path)

    def describe(self) -> dict[str, Any]:
        """The ``metadata`` of a result, of what is open now."""
        return requests.metadata(self, self.runner.open())

    @property
    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{name} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}.", details={"rule": name})
