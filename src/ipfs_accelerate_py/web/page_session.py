"""A page in a real browser that Python opened: starting it, asking it, and a model in it as a RemoteSession."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from ..errors import LaunchError
from ..models.prepared import Graph, Manifest, TensorInfo
from ..platforms.base import Coverage, Memory, OpenOptions, RemoteSession, Sample, Tensors
from ..spec import Workload
from . import protocol
from .bridge import Bridge, Disconnected
from .browser_process import BrowserProcess, start_browser
from .browsers import Browser
from .protocol import Message, Provider

START_LIMIT_S = 60.0
# What a phase may take where the launch sets no limit, in seconds: software adapters compile shaders for minutes.
LIMITS_S: Mapping[str, float] = {"default": 120, "compile": 300, "first_inference": 300, "steady": 600}
# How a provider names itself in ONNX Runtime's log.
ENGINE_PROVIDERS: Mapping[str, str] = {
    "wasm": "CPUExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "webnn": "WebNNExecutionProvider",
}
_EXIT_WAIT_S = 2.0
_LOG_WAIT_S = 0.5

Reply = TypeVar("Reply", bound=Message)


class Page:
    """The runtime's page in a fresh profile of ``browser``; a context manager. Raises LaunchError (browser_start) if it stays away.

    ``folder``, ``files``, ``allow_eval``, ``port`` and ``wrap`` are those of Bridge, ``profile``, ``adapter`` and ``extra_flags`` those of
    ``start_browser``.
    """

    def __init__(
        self,
        browser: Browser,
        *,
        folder: Path | None = None,
        files: Collection[str] = (),
        adapter: str = "auto",
        extra_flags: Sequence[str] = (),
        allow_eval: bool = False,
        profile: Path | None = None,
        port: int = 0,
        wrap: Callable[[Any], Any] = lambda application: application,
    ) -> None:
        self.browser = browser
        self.bridge = Bridge(folder, files, allow_eval=allow_eval, port=port, wrap=wrap).__enter__()
        try:
            self.process: BrowserProcess = start_browser(
                browser, self.bridge.url, profile=profile, adapter=adapter, extra_flags=extra_flags
            )
        except BaseException:  # a full disk, say, is no LaunchError
            self.bridge.close()
            raise
        try:
            self._await_connection()
        except BaseException:  # nothing that was started may stay, whatever ended the wait
            self.close()
            raise

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_connection(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not self.bridge.connected(0.2):
            if self.process.poll() is not None or time.monotonic() > deadline:
                cause = self.process.failure()
                if cause is not None:
                    raise cause
                raise LaunchError("browser_start", f"{self.browser.name} started but did not connect in {START_LIMIT_S:g} s.")
        self.process.connected = True

    def ask(
        self,
        message: Message,
        kind: type[Reply],
        phase: str,
        limit_s: float,
        tensors: Tensors | None = None,
        on_event: Callable[[Message], None] | None = None,
    ) -> tuple[Reply, dict[str, np.ndarray]]:
        """The reply to ``message``, which must be of ``kind``, and its tensors; ``on_event`` gets what comes before it. Raises
        LaunchError with what went wrong."""
        try:
            # Not every page notices that its browser's GPU process died: WebNN calls may then never return.
            frame = self.bridge.request(
                message, tensors, timeout_s=limit_s, phase=phase, watch=self.process.failure, on_event=on_event
            )
        except Disconnected as error:
            raise self._crash(str(error)) from None
        except LaunchError as error:
            raise self._cause(error) from None
        if not isinstance(frame.message, kind):
            raise LaunchError("page_error", f"The page answered {type(message).__name__} with {type(frame.message).__name__}.")
        return frame.message, frame.tensors

    def _cause(self, error: LaunchError) -> LaunchError:
        """A dying GPU process reaches the page as a lost device or a failed call, a moment before the browser's log says it better."""
        deadline = time.monotonic() + (_LOG_WAIT_S if error.error_class in ("device_lost", "inference_failed") else 0)
        while (cause := self.process.failure()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return cause or error

    def _crash(self, told: str) -> LaunchError:
        self.process.wait(_EXIT_WAIT_S)  # the socket closes a moment before the process is gone
        if cause := self.process.failure():
            return cause
        name = f"{self.browser.name} {self.browser.version}"
        return LaunchError(
            "browser_crashed", f"{told} {name} still runs: its content process died (out of memory, or a crash)."
        )

    def close(self) -> None:
        self.process.stop()
        self.bridge.close()


class PageSession(RemoteSession):
    """A prepared model in a page. Every method raises LaunchError; ``options.limits_s`` limits each phase by name (``default`` for
    those not named), and each call of ``timed_samples`` by ``steady``."""

    def __init__(
        self,
        browser: Browser,
        provider: Provider,
        workload: Workload,
        options: OpenOptions,
        *,
        device_type: Literal["cpu", "gpu", "npu"] = "gpu",
        power_preference: Literal["low-power", "high-performance"] | None = None,
        software_adapter: bool = False,
        extra_flags: Sequence[str] = (),
    ) -> None:
        manifest = Manifest.read(options.folder)
        self._provider = provider
        self._limits_s = options.limits_s or LIMITS_S
        self._weights_bytes = manifest.weights_bytes
        self._bytes_read_back: int | None = None
        self._page = Page(
            browser,
            folder=options.folder,
            files=[name for graph in manifest.graphs.values() for name in graph.files],
            adapter="software" if software_adapter else "auto",
            extra_flags=extra_flags,
            allow_eval=provider == "webnn",
        )
        message = protocol.Open(
            provider=provider,
            precision=manifest.precision,
            threads=options.threads,
            device_type=device_type,
            power_preference=power_preference,
            software_adapter=software_adapter,
            dimensions=manifest.dimensions,
            graphs={name: graph_spec(graph) for name, graph in manifest.graphs.items()},
            generation=_generation(manifest, workload),
        )
        try:
            opened, _ = self._page.ask(message, protocol.Opened, "open", START_LIMIT_S, options.inputs)
        except BaseException:  # the caller gets no session to close
            self.close()
            raise
        self.clock_resolution_ns = opened.clock_resolution_ns

    def timed_phases(self) -> dict[str, int]:
        requests: dict[str, Message] = {"fetch": protocol.Fetch(), "load": protocol.Load(), "compile": protocol.Compile()}
        return {phase: self._ask(request, protocol.Timed, phase)[0].ns for phase, request in requests.items()}

    def timed_first(self) -> tuple[Sample, dict[str, np.ndarray]]:
        reply, outputs = self._ask(protocol.First(), protocol.Sampled, "first_inference")
        self._bytes_read_back = reply.bytes_read_back
        return _sample(reply.samples[0]), outputs

    def timed_samples(self, count: int) -> list[Sample]:
        reply, _ = self._ask(protocol.Sample(count=count), protocol.Sampled, "steady")
        return [_sample(times) for times in reply.samples]

    def memory(self) -> Memory:
        return Memory(self._weights_bytes, cast(int | None, self._inspect()["device_peak_bytes"]))

    def coverage(self) -> Coverage | None:
        """Counted in sessions made for it, so ask after everything that is timed."""
        nodes = self._ask(protocol.Count(), protocol.Counted, "coverage")[0].nodes
        return Coverage(ENGINE_PROVIDERS[self._provider], nodes) if nodes else None

    def process_ids(self) -> Sequence[int]:
        return self._page.process.process_ids()

    def facts(self) -> dict[str, Any]:
        browser, inspected = self._page.browser, self._inspect()
        return {
            **inspected,
            "software_adapter": (inspected["device"] or {}).get("software_adapter"),
            "provider": self._provider,
            "browser": {"key": browser.key, "name": browser.name, "version": browser.version},
            "bytes_read_back": self._bytes_read_back,
            "console": self._page.bridge.console,
        }

    def lose_device(self) -> None:
        """Provoke a lost device: the next request fails with device_lost."""
        self._ask(protocol.LoseDevice(), protocol.Done, "losing the device")

    def close(self) -> None:
        self._page.close()

    def _inspect(self) -> dict[str, Any]:
        return self._ask(protocol.Inspect(), protocol.Facts, "inspection")[0].facts

    def _ask(self, message: Message, kind: type[Reply], phase: str) -> tuple[Reply, dict[str, np.ndarray]]:
        limit_s = self._limits_s.get(phase) or self._limits_s.get("default") or LIMITS_S["default"]
        return self._page.ask(message, kind, phase, limit_s)


def _sample(times: protocol.SampleTimes) -> Sample:
    return Sample(times.total_ns, times.token_ns)


def graph_spec(graph: Graph, folder: str = "") -> protocol.GraphSpec:
    """The graph as the page is told of it; ``folder`` is what ``Site.share`` gave."""

    def specs(tensors: Sequence[TensorInfo]) -> tuple[protocol.TensorSpec, ...]:
        return tuple(protocol.TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)

    return protocol.GraphSpec(graph.files, graph.sha256, specs(graph.inputs), specs(graph.outputs), folder, graph.bytes)


def _generation(manifest: Manifest, workload: Workload) -> protocol.GenerationSpec | None:
    if manifest.generation is None or workload.new_tokens is None:
        return None
    return protocol.GenerationSpec(workload.new_tokens, manifest.generation.cache_dtype, manifest.generation.start_token_ids)
