"""What the page is told about a decoder language model: where each matrix lies in the model's files, and what the layers look like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

WeightFormat = Literal["quantized", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class PlaneSpec:
    """Bytes of a file. ``name``: a plane of quantize/formats.py (``codes``, ...), or ``values`` for weights in float."""

    name: str
    file: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class MatrixSpec:
    """A weight matrix [rows, columns]. ``bits`` and ``group_size`` are those of quantize/formats.py; 0 where ``format`` is a float type.

    ``bias`` [rows] is in ``bias_dtype``, or None.
    """

    name: str
    format: WeightFormat
    bits: int
    group_size: int
    rows: int
    columns: int
    planes: tuple[PlaneSpec, ...]
    bias: PlaneSpec | None
    bias_dtype: str


@dataclass(frozen=True)
class VectorSpec:
    """A norm's weights, in ``dtype``."""

    name: str
    dtype: str
    length: int
    plane: PlaneSpec


@dataclass(frozen=True)
class LayerSpec:
    """Names of a layer's matrices and norms. The matrices of a list are applied to the same vector."""

    qkv: tuple[str, ...]
    output: str
    gate_up: tuple[str, ...]
    down: str
    attention_norm: str
    feed_forward_norm: str


@dataclass(frozen=True)
class DecoderSpec:
    """A llama-like decoder. ``inverse_frequencies`` [head_size / 2] of the rotary positions, ``rotary_factor`` multiplies cosine and sine;
    ``sliding_window`` tokens are seen at most (None: all). ``output_matrix`` is the embedding's name where they are tied."""

    hidden_size: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate_size: int
    vocabulary: int
    norm_epsilon: float
    sliding_window: int | None
    inverse_frequencies: tuple[float, ...]
    rotary_factor: float
    layers: tuple[LayerSpec, ...]
    embedding: str
    final_norm: str
    output_matrix: str


@dataclass(frozen=True)
class FileSpec:
    """A file of the model; ``sha256`` is None where the folder states none."""

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class EngineSpec:
    """How to run it. ``key_bits`` and ``value_bits``: 2, 3, 4, 8, 16, 32; ``recent_tokens`` stay float where they are quantised.

    ``prefill_tokens``: tokens of a chunk. ``activations``: ``float`` or ``int8`` (products of four 8-bit integers, where the weights are
    quantised), or ``planned``: for each product what was faster; ``packed_down``: gate and up leave int8 ones for down.
    ``subgroups``: False keeps to the plain variant, None takes what the adapter has. ``attention_workgroups``: how
    many a token's attention is split into at least, where the context is long enough; 0 chooses by adapter. ``prefill_arithmetic``
    float16 multiplies a prompt's tiles in half precision, int8 quantised weights with activations of 8 bits. ``tuned``: numbers by
    "adapter|what" that earlier searches found (see web/remembered.py); the page takes those of its adapter. ``batch``: sequences at a
    time, each with as long a context.
    """

    context_length: int
    key_bits: int
    value_bits: int
    recent_tokens: int
    prefill_tokens: int
    activations: Literal["float", "int8", "planned"]
    prefill_arithmetic: Literal["float32", "float16", "int8"]
    subgroups: bool | None
    attention_workgroups: int
    tuned: dict[str, int] = field(default_factory=dict)
    batch: int = 1
    packed_down: bool = False


@dataclass(frozen=True)
class SamplingSpec:
    """temperature 0: the most probable token. top_k 0, top_p 1, min_p 0 and repetition_penalty 1 leave out nothing.
    ``seed`` is below 2**32. ``logprobs``: the chosen tokens' log-probabilities (natural, of the unchanged distribution)."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    logprobs: bool


@dataclass(frozen=True)
class SequenceTokens:
    """What came of a sequence: ``token_ns`` since it began, ``logprobs`` where asked for. ``reason``, once it is over: stop, length,
    context, cancelled or failed; ``failure`` says why it failed."""

    sequence: int
    tokens: tuple[int, ...]
    token_ns: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: str
    failure: str


SPECS = (SequenceTokens, PlaneSpec, MatrixSpec, VectorSpec, LayerSpec, DecoderSpec, FileSpec, EngineSpec, SamplingSpec)
