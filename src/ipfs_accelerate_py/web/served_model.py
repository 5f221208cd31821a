"""A model that answers requests: the seam between the platform and what executes, and its implementation by ONNX Runtime in a page.

Another engine joins by implementing ``ServedModel``; the platform asks nothing else of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..models.prepared import Graph
from . import protocol
from .page_session import Page, graph_spec
from .protocol import DecodedToken, Message, ModelProgress, Provider
from .remembered import pipeline_key, recorded_pipelines, remember_pipelines, remember_trial
from .switches import Switches, build, optimizations
from .web_model import ENGINE, WebModel

Arrays = Mapping[str, np.ndarray]
OnToken = Callable[[int, Sequence[int], int], bool]  # index, a token a row, nanoseconds since the start; True ends it
OnProgress = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """Where a component of the model is: ``prepare`` (ONNX files are made), ``fetch``, ``verify``, ``compile``."""

    component: str
    phase: str
    loaded_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Loading:
    """What opening took, by the page's clock; ``fetch_ms`` includes the check of each file, ``compile_ms`` is what was left to do then.
    ``upload_ms`` is None where the engine does not tell it from compiling. ``bytes`` of the model; of them ``bytes_fetched`` came from
    the server and ``bytes_from_cache`` were kept by the browser (more where chunks came twice)."""

    fetch_ms: float
    compile_ms: float
    bytes: int
    upload_ms: float | None = None
    bytes_fetched: int | None = None
    bytes_from_cache: int = 0


@dataclass(frozen=True)
class Run:
    """``ns`` by the clock of the place that ran it; ``token_ns`` from its start, of a decoding. ``reused_tokens`` of the prompt were in the
    cache of keys and values already."""

    outputs: dict[str, np.ndarray]
    ns: int
    token_ns: tuple[int, ...] = ()
    reused_tokens: int = 0


class ServedModel(ABC):
    """Every method raises LaunchError with what went wrong there."""

    engine: str
    provenance: Literal["measured", "simulated"]
    facts: dict[str, Any]  # engine_version, threads, device (facts of the adapter, None on wasm)
    loading: Loading
    most_rows: int | None = None  # in one pass; None: as many as fit
    context_length: int | None = None  # tokens that its cache was made for; None: it grows with the request
    takes_recordings = False  # in place of their features, see WebModel.preprocess
    compiled_ahead = 0  # pipelines that an earlier start recorded
    resumes = False  # it goes on from the tokens of an answer that another of its kind began
    bits_per_weight: float | None = None  # scales, zeros and norms included; None where that was not counted
    kv_cache_bits: int | None = None  # of keys and of values; None for a model that has no cache

    @abstractmethod
    def infer(self, arrays: Arrays, limit_s: float) -> Run: ...

    @abstractmethod
    def decode(self, arrays: Arrays, new_tokens: int, cache_tokens: int, limit_s: float, on_token: OnToken) -> Run:
        """Greedy decoding until ``new_tokens``, an end token in every row, or ``on_token`` says so. ``limit_s`` is for each token."""

    @abstractmethod
    def memory(self) -> dict[str, Any]: ...

    @abstractmethod
    def close(self) -> None: ...


OFF = Switches()


@dataclass(frozen=True)
class OpenRequest:
    """What is opened, and how."""

    model: WebModel
    platform: Provider
    precision: str
    threads: int | None = None
    switches: Switches = OFF
    limit_s: float = 300.0
    device: Mapping[str, Any] = field(default_factory=dict)  # device_type, power_preference, software_adapter
    # Of the WGSL engine, which makes its cache when it opens:
    context_length: int | None = None
    kv_cache_bits: int = 16
    memory_threshold_mb: float | None = None


class PageModel(ServedModel):
    """A model in a page, beside others."""

    engine = ENGINE
    provenance: Literal["measured", "simulated"] = "measured"

    def __init__(self, page: Page, name: str, request: OpenRequest, on_progress: OnProgress = lambda progress: None) -> None:
        model = request.model
        folder, graphs = model.graphs(request.precision, lambda step: on_progress(Progress(step, "prepare")))
        self._dtypes = {name: _dtypes(graph) for name, graph in graphs.items()}
        self._page, self._name, self._limit_s = page, name, request.limit_s
        switches = request.switches
        self.takes_recordings = switches.gpu_audio
        self._ends = model.end_tokens if model.generates else ()
        self._prefix = page.bridge.site.share(folder, [name for graph in graphs.values() for name in graph.files])
        generation = model.generation(request.precision)
        digests = [digest for graph in graphs.values() for digest in graph.sha256]
        shapes = {
            "provider": request.platform,
            "precision": request.precision,
            "dimensions": "any",
            "generation": model.generates,
        }
        adapter = "software" if request.device.get("software_adapter") else "auto"
        self._pipeline_key = pipeline_key(page.browser, adapter, build(), digests, shapes)
        pipelines = recorded_pipelines(self._pipeline_key) if switches.precompilation else ()
        self._record = switches.precompilation and not pipelines
        self.kv_cache_bits = np.dtype(generation.cache_dtype).itemsize * 8 if generation else None
        message = protocol.OpenModel(
            model=name,
            provider=request.platform,
            precision=request.precision,
            threads=request.threads,
            graphs={key: graph_spec(graph, self._prefix) for key, graph in graphs.items()},
            generation=protocol.ServedGeneration(generation.cache_dtype, generation.start_token_ids) if generation else None,
            optimizations=optimizations(
                switches,
                page.browser,
                folder,
                graphs,
                pipelines=pipelines,
                audio=model.audio_spec() if switches.gpu_audio else None,
            ),
            **{"device_type": "gpu", "power_preference": None, "software_adapter": False, **request.device},
        )

        def progressed(event: Message) -> None:
            assert isinstance(event, ModelProgress)
            on_progress(Progress(event.component, event.phase, event.loaded_bytes, event.total_bytes))

        try:
            opened, _ = page.ask(message, protocol.ModelOpened, "loading", request.limit_s, on_event=progressed)
        except BaseException:  # whatever ended it, nothing of a model that is not open stays served
            page.bridge.site.withdraw(self._prefix)
            raise
        self.facts = opened.facts
        self.compiled_ahead = len(opened.facts["ahead_ms"])
        size = sum(graph.bytes for graph in graphs.values())
        came = opened.facts["loading"] or {"bytes_fetched": size, "bytes_from_cache": 0}
        self.loading = Loading(
            opened.fetch_ns / 1e6,
            opened.compile_ns / 1e6,
            size,
            bytes_fetched=came["bytes_fetched"],
            bytes_from_cache=came["bytes_from_cache"],
        )
        remember_trial(page.browser, opened.facts)

    def infer(self, arrays: Arrays, limit_s: float) -> Run:
        message = protocol.Infer(model=self._name)
        reply, outputs = self._page.ask(message, protocol.Inferred, "inference", limit_s, self._cast(arrays))
        self._remember_pipelines()
        return Run(outputs, reply.ns)

    def decode(self, arrays: Arrays, new_tokens: int, cache_tokens: int, limit_s: float, on_token: OnToken) -> Run:
        bridge = self._page.bridge
        number = bridge.next_id()
        message = protocol.Decode(
            id=number, model=self._name, new_tokens=new_tokens, cache_tokens=cache_tokens, end_tokens=self._ends
        )

        def decoded(event: Message) -> None:
            assert isinstance(event, DecodedToken)
            if on_token(event.index, event.token_ids, event.ns):
                bridge.post(protocol.CancelRequest(request=number))

        reply, outputs = self._page.ask(message, protocol.Decoded, "decoding", limit_s, self._cast(arrays), decoded)
        self._remember_pipelines()
        return Run(outputs, reply.token_ns[-1], reply.token_ns)

    def memory(self) -> dict[str, Any]:
        return self._page.ask(protocol.PageMemory(), protocol.Facts, "memory", self._limit_s)[0].facts

    def lose_device(self) -> None:
        """Provoke a lost device, as a test."""
        self._page.ask(protocol.LoseModelDevice(model=self._name), protocol.Done, "losing the device", self._limit_s)

    def close(self) -> None:
        if self._page.bridge.broken is None:
            self._page.ask(protocol.CloseModel(model=self._name), protocol.Done, "closing", self._limit_s)
        self._page.bridge.site.withdraw(self._prefix)

    def _remember_pipelines(self) -> None:
        """Those of the first pass are compiled ahead at the next start."""
        if not self._record:
            return
        self._record = False
        message = protocol.RecordPipelines(model=self._name)
        facts = self._page.ask(message, protocol.Facts, "recording", self._limit_s)[0].facts
        if facts["pipelines"]:
            remember_pipelines(self._pipeline_key, [protocol.RecordedPipeline(**each) for each in facts["pipelines"]])

    def _cast(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Those that a graph takes, in the dtypes that it asks for, and recordings as the page takes them: one after the other."""
        wanted = {name: dtype for dtypes in self._dtypes.values() for name, dtype in dtypes.items()}
        cast = {name: np.asarray(array, dtype=wanted[name]) for name, array in arrays.items() if name in wanted}
        if "samples" in arrays:
            lengths = arrays["lengths"]
            rows = [row[:length] for row, length in zip(arrays["samples"], lengths, strict=True)]
            cast |= {"samples": np.concatenate(rows), "lengths": lengths}
        return cast


def _dtypes(graph: Graph) -> dict[str, np.dtype]:
    return {info.name: np.dtype(info.dtype) for info in graph.inputs}
