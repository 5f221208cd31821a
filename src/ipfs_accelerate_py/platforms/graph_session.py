"""What every native engine shares over a prepared folder: one pass, the greedy decoding loop, and typed errors."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from ..errors import LaunchError
from ..models.prepared import Manifest
from ..spec import Workload
from .base import Coverage, Memory, OpenOptions, Session, Tensors
from .processor import default_threads

OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|failed to allocate|unable to allocate|can't allocate|out of memory|not enough memory|CL_OUT_OF_"
    r"|OUT_OF_(DEVICE|HOST)_MEMORY|STATUS_ALLOC_FAILED|insufficient memory",
    re.IGNORECASE,
)
UNSUPPORTED = re.compile(
    r"not[_ ]?implemented|no conversion rule found|not a registered function/op|not supported|unsupported"
    r"|does(n't| not) support|could not find an implementation",
    re.IGNORECASE,
)


def error_class(error: Exception, otherwise: str) -> str:
    """The class of an engine's error, by its type and its own words; ``otherwise`` where they say nothing."""
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return "out_of_memory"
    if isinstance(error, NotImplementedError) or UNSUPPORTED.search(str(error)):
        return "unsupported"
    return otherwise


@contextmanager
def engine_errors(otherwise: str) -> Iterator[None]:
    """Turns what an engine raises into a LaunchError that keeps the engine's message; ``otherwise`` is the class of the rest."""
    try:
        yield
    except LaunchError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}".strip()
        raise LaunchError(error_class(error, otherwise), message) from error


class GraphSession(Session):
    """A prepared folder on one engine. Tensors stay as the engine holds them (``Any`` here) until ``download``."""

    engine: ClassVar[str]
    manifest: Manifest

    def __init__(self, workload: Workload, device: str, options: OpenOptions) -> None:
        self.workload = workload
        self.device = device
        self.folder = options.folder
        self.threads = options.threads or default_threads()
        with engine_errors("load_failed"):
            self.start_engine()

    @abstractmethod
    def start_engine(self) -> None:
        """Import the engine, so that ``load`` is the reading of weights and not of Python modules."""

    @abstractmethod
    def load_graphs(self) -> None:
        """Read the weights of every graph of the manifest."""

    @abstractmethod
    def compile_graphs(self) -> None:
        """Build what ``run`` executes."""

    @abstractmethod
    def run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """One execution of a graph, engine tensors in and out. An output stays valid until the next but one run of this graph."""

    @abstractmethod
    def upload(self, array: np.ndarray) -> Any:
        """An engine tensor with these values, on the device."""

    @abstractmethod
    def download(self, tensor: Any) -> np.ndarray:
        """The values of an engine tensor, in memory of their own; waits for the device."""

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.upload(np.zeros(shape, dtype))

    @engine_errors("load_failed")
    def load(self) -> None:
        self.manifest = Manifest.read(self.folder)
        self.dtypes = {
            name: {info.name: np.dtype(info.dtype) for info in graph.inputs} for name, graph in self.manifest.graphs.items()
        }
        self.load_graphs()

    @engine_errors("load_failed")
    def compile(self) -> None:
        self.compile_graphs()

    @engine_errors("inference_failed")
    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        outputs = self.run("model", self._feeds("model", inputs))
        return {name: self.download(tensor) for name, tensor in outputs.items()}

    @engine_errors("inference_failed")
    def generate(self, inputs: Tensors, new_tokens: int, on_token: Callable[[], None]) -> dict[str, np.ndarray]:
        generation = self.manifest.generation
        if generation is None:
            raise LaunchError("unsupported", f"{self.manifest.model_class} does not generate tokens")
        batch = next(iter(inputs.values())).shape[0]
        if generation.start_token_ids is None:
            tokens = inputs["input_ids"]
        else:
            tokens = np.tile(np.array(generation.start_token_ids, dtype=np.int64), (batch, 1))
        fixed = self._feeds("decoder", {name: array for name, array in inputs.items() if name != "input_ids"})
        for graph in self.manifest.graphs:
            if graph != "decoder":
                fixed |= self.run(graph, self._feeds(graph, inputs))
        positions = np.arange(tokens.shape[1], dtype=np.int32)
        shape = (batch, generation.key_value_heads, len(positions) + new_tokens, generation.head_size)
        names = [f"{layer}.{part}" for layer in range(generation.layers) for part in ("key", "value")]
        past = {f"past.{name}": self.zeros(shape, generation.cache_dtype) for name in names}
        generated = np.empty((batch, new_tokens), dtype=np.int64)
        for step in range(new_tokens):
            step_inputs = {"input_ids": tokens, "positions": positions}
            outputs = self.run("decoder", {**self._feeds("decoder", step_inputs), **fixed, **past})
            scores = self.download(outputs["logits"])
            generated[:, step] = scores.argmax(axis=-1)
            on_token()
            if step == 0:
                logits = scores.astype(np.float32)
            past = {f"past.{name}": outputs[f"present.{name}"] for name in names}
            tokens, positions = generated[:, step : step + 1], positions[-1:] + 1
        return {"token_ids": generated, "logits": logits}

    def _feeds(self, graph: str, arrays: Tensors) -> dict[str, Any]:
        return {name: self.upload(array) for name, array in self._arrays(graph, arrays).items()}

    def _arrays(self, graph: str, arrays: Tensors) -> dict[str, np.ndarray]:
        """Those arrays that the graph takes, in the dtypes that it asks for."""
        wanted = self.dtypes[graph]
        return {name: np.ascontiguousarray(array, dtype=wanted[name]) for name, array in arrays.items() if name in wanted}

    def synchronize(self) -> None:
        """Nothing to wait for: these engines block until their work is done."""

    def memory(self) -> Memory:
        return Memory(weights_bytes=self.manifest.weights_bytes)

    def coverage(self) -> Coverage | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {"engine": self.engine, "device": self.device, "threads": self.threads}


def unsupported_by(platform: str, engines: Sequence[str], engine: str) -> str | None:
    """The sentence for an engine that a platform does not have."""
    return None if engine in engines else f"{platform} has no engine '{engine}': it has {' and '.join(engines)}."
