"""onnxruntime on its CPU execution provider."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .base import Coverage, Tensors
from .extras import load_extra
from .graph_session import GraphSession, engine_errors

PROVIDER = "CPUExecutionProvider"


def session_options(threads: int, dimensions: dict[str, int]) -> Any:
    """The ``SessionOptions`` of every session here: given threads, named dimensions fixed, node assignment recorded."""
    options = load_extra("onnxruntime", "onnx").SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors reach the caller as exceptions, not also on the terminal
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, value in dimensions.items():
        options.add_free_dimension_override_by_name(name, value)
    return options


class OnnxRuntimeSession(GraphSession):
    """Loading reads the model file. External data is mapped by onnxruntime itself, so that time counts as compiling."""

    engine = "onnxruntime"

    def start_engine(self) -> None:
        self.onnxruntime = load_extra("onnxruntime", "onnx")

    def load_graphs(self) -> None:
        self.models: dict[str, bytes | Path] = {}
        for name, graph in self.manifest.graphs.items():
            path = self.folder / graph.files[0]
            self.models[name] = path if len(graph.files) > 1 else path.read_bytes()

    def compile_graphs(self) -> None:
        options = session_options(self.threads, self.manifest.dimensions)
        self.sessions = {
            name: self.onnxruntime.InferenceSession(model, options, providers=[PROVIDER]) for name, model in self.models.items()
        }
        self.models.clear()
        self.outputs = {name: [output.name for output in session.get_outputs()] for name, session in self.sessions.items()}

    @engine_errors("inference_failed")
    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        # Arrays in and out: the OrtValues that keep a decoder's cache in place cost a single pass 0.1 ms more.
        names = self.outputs["model"]
        return dict(zip(names, self.sessions["model"].run(names, self._arrays("model", inputs)), strict=True))

    def run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        names = self.outputs[graph]
        return dict(zip(names, self.sessions[graph].run_with_ort_values(names, feeds), strict=True))

    def upload(self, array: np.ndarray) -> Any:
        return self.onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def download(self, tensor: Any) -> np.ndarray:
        return tensor.numpy()

    def coverage(self) -> Coverage:
        """Nodes as onnxruntime partitioned them: after its basic optimisation, before a provider's own fusions."""
        assigned = [part for session in self.sessions.values() for part in session.get_provider_graph_assignment_info()]
        nodes: Counter[str] = Counter()
        for part in assigned:
            nodes[part.ep_name] += len(part.get_nodes())
        return Coverage(PROVIDER, dict(nodes))

    def close(self) -> None:
        self.models, self.sessions = {}, {}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "provider": PROVIDER, "onnxruntime": self.onnxruntime.__version__}
