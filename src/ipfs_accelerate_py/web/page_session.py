"""A page in a real browser that Python opened: starting it, asking it, and a model in it as a RemoteSession."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
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
from .node_times import time_facts
from .profiles import kept_profile
from .protocol import Message, Provider

# Large frames together, from which on shared files are opened, which takes as long as some of them. Chosen, not measured.
SHARING_PAYS_BYTES = 8 * 2**20
START_LIMIT_S = 60.0
# What a phase may take where the launch sets no limit, in seconds: software adapters compile shaders for minutes.
LIMITS_S: Mapping[str, float] = {"default": 120, "compile": 300, "first_inference": 300, "steady": 600}
# How a provider names itself in ONNX Runtime's log.
ENGINE_PROVIDERS: Mapping[str, str] = {
    "wasm": "CPUExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "webnn": "WebNNExecutionProvider",
}
# A model whose first inference took longer is not run again to have its nodes timed: that is a software adapter, and no GPU's time.
SLOWEST_TIMED_NODES_S = 20.0
CLOSE_WAIT_S = 5.0  # of a browser that is asked to end
_EXIT_WAIT_S = 2.0
_LOG_WAIT_S = 0.5

Reply = TypeVar("Reply", bound=Message)


class Page:
    """The runtime's page in a fresh profile of ``browser``, or with ``keep`` in the kept one of that name (see profiles.py); a context
    manager. Raises LaunchError (browser_start) if it stays away, UserError where another process uses the kept profile.

    ``folder``, ``files``, ``allow_eval`` and ``wrap`` are those of Bridge, ``adapter`` and ``extra_flags`` those of ``start_browser``.
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
        keep: str | None = None,
        wrap: Callable[[Any], Any] = lambda application: application,
    ) -> None:
        self.browser = browser
        self._sharing = threading.Lock()
        with ExitStack() as opened:  # nothing that was started may stay where this fails: a full disk, say, is no LaunchError
            self._kept = opened.enter_context(kept_profile(browser, keep)) if keep is not None else None
            port = self._kept.port if self._kept else 0
            self.bridge = opened.enter_context(Bridge(folder, files, allow_eval=allow_eval, port=port, wrap=wrap))
            profile = self._kept.profile if self._kept else None
            self.process: BrowserProcess = start_browser(
                browser, self.bridge.url, profile=profile, adapter=adapter, extra_flags=extra_flags
            )
            self._profile: Path | None = self.process.profile
            opened.callback(self.process.stop)
            self._await_connection()
            if self._kept:
                self._kept.remember_port(int(self.bridge.host.rpartition(":")[2]))
            self._opened = opened.pop_all()

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
            self._share_files(tensors or {}, limit_s)
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

    def _share_files(self, tensors: Tensors, limit_s: float) -> None:
        """Once, as soon as it pays; others use the WebSocket meanwhile."""
        large = self.bridge.traffic.large_bytes + sum(array.nbytes for array in tensors.values())
        if large < SHARING_PAYS_BYTES or not self._sharing.acquire(blocking=False):  # never released: it is tried once
            return
        self.bridge.open_files(self._profile, timeout_s=limit_s, watch=self.process.failure)

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

    @property
    def profile(self) -> str:
        """``fresh``, ``kept, first start`` or ``kept, started before``."""
        return "fresh" if self._kept is None else f"kept, {'first start' if self._kept.fresh else 'started before'}"

    @property
    def kept(self) -> bool:
        return self._kept is not None

    def close(self) -> None:
        """Safe to call again. The kept profile is free again whatever happens."""
        with self._opened:
            if self._kept and self.bridge.broken is None and self.process.poll() is None:  # else its number may be another's
                # A browser that is killed loses what it has not written yet, and a kept profile is there for just that.
                with suppress(ProcessLookupError):
                    os.kill(self.process.pid, signal.SIGTERM)
                self.process.wait(CLOSE_WAIT_S)


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
        self._first_ns = 0
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
        self._first_ns = reply.samples[0].total_ns
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

    def time_coverage(self, coverage: Coverage | None) -> dict[str, Any]:
        if coverage is None or self._provider != "webgpu" or self._first_ns > SLOWEST_TIMED_NODES_S * 1e9:
            return time_facts(coverage, None)
        return time_facts(coverage, self._ask(protocol.TimeNodes(), protocol.Facts, "node_times")[0].facts)

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
