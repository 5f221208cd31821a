"""OpenVINO on any device that it finds; the CPU by default."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..errors import LaunchError, UnavailableError
from ..spec import Workload
from .base import Available, Coverage, Device, OpenOptions, Platform, Unavailable
from .exported import exported_unsupported
from .extras import guarded, load_extra
from .graph_session import GraphSession, unsupported_by

# Without a hint OpenVINO computes float32 models in bfloat16 on processors that have it. int8 and int4 models keep float32 between
# their products.
INFERENCE_PRECISION = {"float32": "f32", "float16": "f16", "int8": "f32", "int4": "f32"}
DEFAULT_DEVICE = "CPU"


class OpenVino(Platform):
    name = "openvino"
    engines = ("openvino",)

    @guarded
    def probe(self) -> Available | Unavailable:
        openvino = load_extra("openvino", "openvino")
        core = openvino.Core()
        devices = tuple(
            Device(
                "default" if name == DEFAULT_DEVICE else name,
                core.get_property(name, "FULL_DEVICE_NAME"),
                {"capabilities": _capabilities(core, name)},
            )
            for name in core.available_devices
        )
        if not devices:
            return Unavailable("OpenVINO finds no device that it can use.", "See https://docs.openvino.ai for its drivers.")
        return Available(devices, self.engines, {"openvino": openvino.__version__})

    def unsupported(self, workload: Workload, engine: str) -> str | None:
        if reason := unsupported_by(self.name, self.engines, engine) or exported_unsupported(workload, engine):
            return reason
        if workload.precision == "float16":
            try:
                core = load_extra("openvino", "openvino").Core()
            except UnavailableError:
                return None  # the probe says so
            if not any("FP16" in _capabilities(core, device) for device in core.available_devices):
                return "No OpenVINO device here computes in float16."
        return None

    def open(self, workload: Workload, device: str, options: OpenOptions) -> OpenVinoSession:
        return OpenVinoSession(workload, DEFAULT_DEVICE if device == "default" else device, options)


def _capabilities(core: Any, device: str) -> list[str]:
    return sorted(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))


class OpenVinoSession(GraphSession):
    """Two requests a graph take turns, so that the key-value cache which one step writes is the next one's input without a copy."""

    engine = "openvino"

    def start_engine(self) -> None:
        self.openvino = load_extra("openvino", "openvino")
        self.core = self.openvino.Core()

    def load_graphs(self) -> None:
        self.models = {name: self.core.read_model(self.folder / graph.files[0]) for name, graph in self.manifest.graphs.items()}
        for name, graph in self.manifest.graphs.items():
            shapes = {
                info.name: [
                    self.manifest.dimensions.get(str(size), -1) if isinstance(size, str) else size for size in info.shape
                ]
                for info in graph.inputs
            }
            self.models[name].reshape({input_name: self.openvino.PartialShape(shape) for input_name, shape in shapes.items()})

    def compile_graphs(self) -> None:
        precision = INFERENCE_PRECISION[self.workload.precision]
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if self.device == "CPU":
            config["INFERENCE_NUM_THREADS"] = self.threads
        self.compiled = {name: self.core.compile_model(model, self.device, config) for name, model in self.models.items()}
        self.models.clear()
        for compiled in self.compiled.values():
            really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            if really != precision:
                raise LaunchError(
                    "unsupported", f"OpenVINO's {self.device} computes in {really} where {precision} was asked for."
                )
        self.requests = {name: [model.create_infer_request() for _ in range(2)] for name, model in self.compiled.items()}

    def run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        self.requests[graph].reverse()
        request = self.requests[graph][0]
        for name, tensor in feeds.items():  # which stay alive until the wait is over: a request does not own its inputs
            request.set_tensor(name, tensor)
        request.start_async()
        request.wait()
        return {output.any_name: request.get_tensor(output) for output in self.compiled[graph].outputs}

    def upload(self, array: np.ndarray) -> Any:
        return self.openvino.Tensor(array, shared_memory=True)

    def download(self, tensor: Any) -> np.ndarray:
        return np.array(tensor.data)

    def coverage(self) -> Coverage | None:
        """Nodes of the compiled graph; None where OpenVINO spread it over several devices and does not say how."""
        devices = {device for compiled in self.compiled.values() for device in compiled.get_property("EXECUTION_DEVICES")}
        if len(devices) != 1:
            return None
        return Coverage(self.device, {devices.pop(): sum(self._precisions().values())})

    def _precisions(self) -> Counter[str]:
        """Executed nodes by the precision that each one really runs in."""
        counts: Counter[str] = Counter()
        for compiled in self.compiled.values():
            for node in compiled.get_runtime_model().get_ordered_ops():
                information = {key: value.astype(str) for key, value in node.get_rt_info().items()}
                if information.get("layerType") not in ("Input", "Output", "Const"):
                    counts[information["runtimePrecision"]] += 1
        return counts

    def close(self) -> None:
        self.models, self.requests, self.compiled = {}, {}, {}

    def facts(self) -> dict[str, Any]:
        name = self.core.get_property(self.device, "FULL_DEVICE_NAME")
        ran = {"device_name": name, "openvino": self.openvino.__version__, "nodes_by_precision": dict(self._precisions())}
        return {**super().facts(), **ran}
