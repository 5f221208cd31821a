"""A prepared model: a folder that every engine of every platform runs, native and in the browser.

    manifest.json        this file's Manifest
    model.onnx ...       one ONNX file per graph, weights inside or as external data beside it
    inputs.npz           the example inputs of every iteration
    reference.npz        outputs of the float32 CPU reference on these inputs

A single-pass model (bert, vit) has one graph, ``model``. A generating model has a ``decoder``, used for prefill and for each further
token (llama has nothing else), and possibly graphs that run once before it, in the manifest's order, and whose outputs the decoder
takes by name: ``encoder`` (whisper, t5), ``vision`` (llava). Every graph takes those inputs of the workload that it names.

The decoder keeps a key-value cache of fixed length (dimension ``cache``), so that every shape is static once the named
dimensions have values, as WebNN needs:

    inputs    input_ids int64 [batch, sequence]; positions int32 [sequence];
              past.I.key, past.I.value [batch, key_value_heads, cache, head_size] for each layer I
              what the graphs before it gave: cross.I.key, cross.I.value of an encoder, image_features of a vision tower
    outputs   logits [batch, vocabulary] of the last position; present.I.key, present.I.value, shaped as past

Positions 0..cache-1; a query at position p sees keys at positions <= p. Prefill runs with the whole prompt at positions
0..n-1 on a zeroed cache, each further token with one position. ``cache`` is prompt tokens + new tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..lazy_numpy import np

FORMAT = 1


@dataclass(frozen=True)
class TensorInfo:
    """``shape`` mixes sizes and names of dimensions: ``["batch", 3, 224, 224]``. ``dtype`` is NumPy's name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file. ``files`` lists it first, then its external data; ``sha256`` has one digest per file."""

    files: tuple[str, ...]
    sha256: tuple[str, ...]
    bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Graph:
        tensors = {
            side: tuple(TensorInfo(t["name"], t["dtype"], tuple(t["shape"])) for t in raw[side])
            for side in ("inputs", "outputs")
        }
        return cls(files=tuple(raw["files"]), sha256=tuple(raw["sha256"]), bytes=raw["bytes"], **tensors)


@dataclass(frozen=True)
class Generation:
    """How to generate with the decoder graph. ``start_token_ids`` is the prompt for encoder-decoders, None where the workload's
    ``input_ids`` are the prompt."""

    layers: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    cache_dtype: str
    start_token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Manifest:
    """``dimensions`` gives this workload's value of each named dimension except ``sequence`` and ``cache`` of a decoder.

    A graph without ``files`` was not exported: only torch runs this folder. ``reference_rows`` is the number of items at the start of
    the batch that ``reference.npz`` has, None for all.
    """

    model_class: str
    origin: str
    precision: str
    dimensions: dict[str, int]
    graphs: dict[str, Graph]
    parameters: int
    weights_bytes: int
    generation: Generation | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    reference_rows: int | None = None
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        (folder / "manifest.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        raw = json.loads((folder / "manifest.json").read_text())
        raw["graphs"] = {name: Graph.from_dict(value) for name, value in raw["graphs"].items()}
        if raw["generation"]:
            start = raw["generation"]["start_token_ids"]
            raw["generation"]["start_token_ids"] = None if start is None else tuple(start)
            raw["generation"] = Generation(**raw["generation"])
        return cls(**raw)


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``inputs.npz`` or ``reference.npz``, by name."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
