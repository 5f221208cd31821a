"""``web_api_mode="simulation"``: the same graphs on this machine's CPU, without any browser. Only for who asks for it by name.

Outputs are real, times are those of onnxruntime here, and everything is marked ``simulated``: it says nothing about a browser.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np

from ..errors import LaunchError
from ..models.prepared import Manifest
from ..platforms.base import OpenOptions
from ..platforms.onnxruntime_session import OnnxRuntimeSession
from ..spec import Workload
from .served_model import Arrays, Loading, OnProgress, OnToken, OpenRequest, Progress, Run, ServedModel


class SimulatedModel(ServedModel):
    engine = "onnxruntime (simulation of a browser)"
    provenance: Literal["measured", "simulated"] = "simulated"

    def __init__(self, request: OpenRequest, on_progress: OnProgress = lambda progress: None) -> None:
        started = time.perf_counter()
        model = request.model
        folder, graphs = model.graphs(request.precision, lambda step: on_progress(Progress(step, "prepare")))
        size = sum(graph.bytes for graph in graphs.values())
        manifest = Manifest(
            model_class=model.model_class.name,
            origin=model.reference.origin,
            precision=request.precision,
            dimensions={},
            graphs=graphs,
            parameters=0,
            weights_bytes=size,
            generation=model.generation(request.precision),
        )
        self._session = _AnyShape(manifest, OpenOptions(folder=folder, engine="onnxruntime", threads=request.threads))
        self._session.load()
        fetched = time.perf_counter()
        self._session.compile()
        self._ends = set(model.end_tokens) if model.generates else set()
        self.facts = {"engine_version": self._session.facts()["onnxruntime"], "threads": self._session.threads, "device": None}
        self.loading = Loading((fetched - started) * 1e3, (time.perf_counter() - fetched) * 1e3, size)

    def infer(self, arrays: Arrays, limit_s: float) -> Run:
        started = time.perf_counter_ns()
        outputs = self._session.infer(arrays)
        return Run(outputs, time.perf_counter_ns() - started)

    def decode(self, arrays: Arrays, new_tokens: int, cache_tokens: int, limit_s: float, on_token: OnToken) -> Run:
        """All tokens are made and then told: a simulation streams nothing."""
        started = time.perf_counter_ns()
        token_ns: list[int] = []
        outputs = self._session.generate(arrays, new_tokens, lambda: token_ns.append(time.perf_counter_ns() - started))
        ids = outputs["token_ids"]
        open_rows = set(range(len(ids)))
        for index, ns in enumerate(token_ns):
            open_rows -= {row for row in open_rows if int(ids[row, index]) in self._ends}
            if on_token(index, [int(token) for token in ids[:, index]], ns) or not open_rows:
                break
        told = index + 1
        return Run({**outputs, "token_ids": ids[:, :told]}, token_ns[told - 1], tuple(token_ns[:told]))

    def memory(self) -> dict[str, Any]:
        return {"models": [], "gpu_buffer_bytes": None, "gpu_buffer_peak_bytes": None}

    def close(self) -> None:
        self._session.close()


class _AnyShape(OnnxRuntimeSession):
    """A session of a manifest that lies nowhere, whose named dimensions stay open."""

    def __init__(self, manifest: Manifest, options: OpenOptions) -> None:
        self._given = manifest
        workload = Workload(
            model_class=manifest.model_class, size="", weights="", origin=manifest.origin, task="", precision=manifest.precision
        )
        super().__init__(workload, "default", options)

    def load(self) -> None:
        self.manifest = self._given
        self.dtypes = {
            name: {info.name: np.dtype(info.dtype) for info in graph.inputs} for name, graph in self.manifest.graphs.items()
        }
        missing = [
            name for graph in self.manifest.graphs.values() for name in graph.files if not (self.folder / name).is_file()
        ]
        if missing:
            raise LaunchError("load_failed", f"{missing[0]} is not in {self.folder}.")
        self.load_graphs()
