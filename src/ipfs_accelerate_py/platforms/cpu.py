"""The processor, with torch or onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

from ..spec import Workload
from .base import Available, Device, OpenOptions, Platform, Unavailable
from .exported import exported_unsupported
from .extras import guarded, install_command
from .graph_session import GraphSession, unsupported_by
from .onnxruntime_session import OnnxRuntimeSession
from .processor import processor_facts
from .torch_session import open_torch, torch_unsupported

SESSIONS: dict[str, Callable[[Workload, str, OpenOptions], GraphSession]] = {
    "torch": open_torch,
    "onnxruntime": OnnxRuntimeSession,
}


class Cpu(Platform):
    name = "cpu"
    engines = tuple(SESSIONS)

    @guarded
    def probe(self) -> Available | Unavailable:
        engines = tuple(engine for engine in SESSIONS if find_spec(engine))
        if not engines:
            return Unavailable("Neither torch nor onnxruntime is installed.", install_command("torch,onnx"))
        facts = processor_facts()
        return Available((Device("default", facts["model"], facts),), engines, {engine: version(engine) for engine in engines})

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if engine == "torch":
            return torch_unsupported(workload)
        if reason := unsupported_by(self.name, self.engines, engine) or exported_unsupported(workload, engine):
            return reason
        if workload.precision == "float16":
            # Seen in the optimised graph: it casts to float32 before each operator and back after it.
            return (
                "onnxruntime has no float16 kernels for the CPU and would compute in float32; float16 needs torch or openvino."
            )
        return None

    def open(self, workload: Workload, device: str, options: OpenOptions) -> GraphSession:
        return SESSIONS[options.engine](workload, "cpu", options)
