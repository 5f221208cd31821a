"""A prepared model in a page with the web optimisations as switches: for whoever measures or uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np

from ..models.prepared import Manifest
from ..platforms.base import OpenOptions, Sample
from ..spec import Workload
from . import protocol
from .browsers import Browser
from .chunks import CHUNK_BYTES
from .page_session import LIMITS_S, Page, _generation, graph_spec
from .profiles import model_key
from .protocol import AudioSpec, Message, ModelProgress, Provider, RecordedPipeline
from .remembered import pipeline_key, recorded_pipelines, remember_pipelines, remember_trial
from .shaped_link import Wrapper, kept_runtime
from .skeleton import skeleton
from .switches import Switches, build, optimizations


@dataclass(frozen=True)
class Audio:
    """Recordings that the page makes the model's input from: float32 [samples] each, mono, at ``sample_rate`` Hz."""

    spec: AudioSpec
    recordings: Sequence[np.ndarray]
    sample_rate: int

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "samples": np.concatenate([*self.recordings, np.zeros(0)]).astype(np.float32),
            "lengths": np.array([len(recording) for recording in self.recordings], np.int32),
        }


class OptimizedSession:
    """A context manager. Raises LaunchError as PageSession does; ``link`` wraps the server, see shaped_link.py.

    ``options.inputs`` are the model's inputs, without the audio one where ``audio`` is given. ``pipelines`` and ``tuned`` are those that
    earlier sessions remembered unless given. ``started_ns`` is when the browser's process was asked for, on ``time.monotonic_ns``.
    """

    def __init__(
        self,
        browser: Browser,
        provider: Provider,
        workload: Workload,
        options: OpenOptions,
        switches: Switches,
        *,
        audio: Audio | None = None,
        link: Wrapper | None = None,
        tuned: dict[str, int] | None = None,
        pipelines: Sequence[RecordedPipeline] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        power_preference: Literal["low-power", "high-performance"] | None = None,
        adapter: str = "auto",
    ) -> None:
        self.switches = switches
        self._browser = browser
        self._limits_s = options.limits_s or LIMITS_S
        manifest = Manifest.read(options.folder)
        graphs = {name: graph_spec(graph) for name, graph in manifest.graphs.items()}
        generation = _generation(manifest, workload)
        shapes = {
            **{"provider": provider, "precision": manifest.precision, "dimensions": manifest.dimensions},
            "generation": asdict(generation) if generation else None,
        }
        digests = [digest for graph in manifest.graphs.values() for digest in graph.sha256]
        self._pipeline_key = pipeline_key(browser, adapter, build(), digests, shapes)
        if pipelines is None:
            pipelines = recorded_pipelines(self._pipeline_key) if switches.precompilation else ()
        self._record = switches.precompilation and not pipelines
        zero_bytes: dict[str, int] = {}
        if switches.precompilation and switches.parallel_loading and provider == "webgpu" and not pipelines:
            for name, graph in manifest.graphs.items():
                made = skeleton(options.folder, graph)
                graphs[f"skeleton:{name}"] = graph_spec(made.graph)
                zero_bytes[name] = made.zero_bytes
        chosen = optimizations(
            switches,
            browser,
            options.folder,
            manifest.graphs,
            pipelines=pipelines,
            audio=audio.spec if audio else None,
            sample_rate=audio.sample_rate if audio else 0,
            zero_bytes=zero_bytes,
            tuned=tuned,
            chunk_bytes=chunk_bytes,
        )
        self._message = protocol.Open(
            provider=provider,
            precision=manifest.precision,
            threads=options.threads,
            device_type="gpu",
            power_preference=power_preference,
            software_adapter=adapter == "software",
            dimensions=manifest.dimensions,
            graphs=graphs,
            generation=generation,
            optimizations=chosen,
        )
        self._inputs = {**(options.inputs or {}), **(audio.tensors() if audio else {})}
        wrap: Wrapper = kept_runtime if link is None else lambda application: link(kept_runtime(application))
        files = [name for graph in graphs.values() for name in graph.files]
        keep = model_key(manifest.graphs) if switches.keep else None
        self.started_ns = time.monotonic_ns()
        self._page = Page(browser, folder=options.folder, files=files, adapter=adapter, wrap=wrap, keep=keep)

    def __enter__(self) -> OptimizedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def profile(self) -> str:
        """``fresh``, ``kept, first start`` or ``kept, started before``."""
        return self._page.profile

    def prepare(self, on_progress: Callable[[ModelProgress], None] | None = None) -> dict[str, Any]:
        """Load, compile and whatever the switches add. The report: ``marks_ms`` since navigation, ``loading``, ``pipelines``, ...

        ``on_progress`` gets the bytes of each component while ``parallel_loading`` brings them in.
        """
        limit_s = self._limit_s("compile")
        self._page.ask(self._message, protocol.Opened, "open", limit_s, self._inputs)
        heard = cast(Callable[[Message], None] | None, on_progress)
        report = self._page.ask(protocol.Prepare(), protocol.Facts, "preparing", limit_s, on_event=heard)[0].facts
        remember_trial(self._browser, report)
        return {**report, "profile": self.profile}

    def first(self) -> tuple[Sample, dict[str, np.ndarray]]:
        """The first inference after preparing, with its outputs. With precompilation its pipelines are remembered for later starts."""
        reply, outputs = self._page.ask(protocol.First(), protocol.Sampled, "first inference", self._limit_s("first_inference"))
        if self._record:
            remember_pipelines(self._pipeline_key, self.recorded())
            self._record = False
        return Sample(reply.samples[0].total_ns, reply.samples[0].token_ns), outputs

    def samples(self, count: int) -> list[Sample]:
        reply, _ = self._page.ask(protocol.Sample(count=count), protocol.Sampled, "steady", self._limit_s("steady"))
        return [Sample(times.total_ns, times.token_ns) for times in reply.samples]

    def facts(self) -> dict[str, Any]:
        """What really ran: the engine's version, the adapter and whether it is a software one."""
        return self._page.ask(protocol.Inspect(), protocol.Facts, "inspection", self._limit_s("default"))[0].facts

    def recorded(self) -> list[RecordedPipeline]:
        """The compute pipelines that were made, for ``pipelines`` of the next session with this model, browser and adapter."""
        facts = self._page.ask(protocol.RecordPipelines(), protocol.Facts, "recording", self._limit_s("default"))[0].facts
        return [RecordedPipeline(**pipeline) for pipeline in facts["pipelines"]]

    def evict(self, share: float = 1.0) -> dict[str, Any]:
        """Remove a share of the chunks that the browser keeps."""
        return self._page.ask(protocol.Evict(share=share), protocol.Facts, "evicting", self._limit_s("default"))[0].facts

    def lose_device(self) -> None:
        self._page.ask(protocol.LoseDevice(), protocol.Done, "losing the device", self._limit_s("default"))

    def close(self) -> None:
        self._page.close()

    def _limit_s(self, phase: str) -> float:
        return self._limits_s.get(phase) or self._limits_s.get("default") or LIMITS_S["default"]


def effects(report: dict[str, Any]) -> dict[str, Any]:
    """What the switches did in this start, for ``feature_usage``: measured there, nothing assumed."""
    marks, loading, pipelines = report["marks_ms"], report["loading"], report["pipelines"]
    trial = report["readback"]
    return {
        "ready_ms": marks["ready"] - marks["begin"],
        "bytes_fetched": loading["bytes_fetched"] if loading else None,
        "bytes_from_cache": loading["bytes_from_cache"] if loading else None,
        "pipelines": len(pipelines["made"]) if pipelines else None,
        "pipelines_before_the_weights": pipelines["before_the_weights"] if pipelines else None,
        "front_end": report["front_end"],
        "readback": trial["readback"] if trial else None,
        "readback_trial_ns": {name: trial[f"{name}_ns"] for name in ("plain", "woken")} if trial else None,
        "profile": report["profile"],
    }


def warm_up_report(report: dict[str, Any]) -> dict[str, Any]:
    """The compute pipelines of a start that ``prepare`` reported: ``count``, each with ``label``, ``ms`` (None where the browser compiles
    behind a call that returns at once) and ``ahead`` (compiled before it was asked for), ``ahead_ms`` of those, how many were there
    ``before_the_weights``, and the ``profile``: a page cannot see whether the browser's own cache had one. Empty without WebGPU."""
    pipelines = report["pipelines"] or {"made": [], "ahead_ms": [], "before_the_weights": 0}
    return {
        "count": len(pipelines["made"]) + len(pipelines["ahead_ms"]) - sum(made["ahead"] for made in pipelines["made"]),
        "pipelines": pipelines["made"],
        "ahead_ms": pipelines["ahead_ms"],
        "before_the_weights": pipelines["before_the_weights"],
        "profile": report["profile"],
    }
