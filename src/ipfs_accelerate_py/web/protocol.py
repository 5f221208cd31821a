"""Messages between Python and the page. These dataclasses are the single source: ``browser/src/protocol.ts`` is generated from them by

    python -m ipfs_accelerate_py.web.protocol > browser/src/protocol.ts

A message without tensors is a text frame, its JSON. One with tensors is a binary frame: length of the JSON as uint32 little-endian, the
JSON padded with spaces so that what follows starts at a multiple of 8 bytes, then each tensor's bytes (little-endian, C order), each
padded to a multiple of 8. The JSON then has ``tensors``, a list of TensorHeader whose offsets count from the end of the JSON.

Large tensors may go by a file that both have open (``shared_files.py``): then a text frame has ``tensors`` and ``stored_at``, from which in
the file the offsets count.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import ERROR_CLASSES
from . import language_model_protocol as language_model
from .language_model_protocol import DecoderSpec, EngineSpec, FileSpec, MatrixSpec, SamplingSpec, SequenceTokens, VectorSpec

Provider = Literal["wasm", "webgpu", "webnn"]
DTYPES = ("float32", "float16", "int64", "int32", "uint8", "int8", "bool")
ALIGNMENT = 8
# Tensors of a message that together have as many go by the shared file. Chosen, not measured: benchmarks/bridge.py --mib would tell.
SHARED_BYTES = 256 * 1024
SHARED_LIMIT_BYTES = 512 * 2**20  # the most that a shared file may grow to; what does not fit goes by the WebSocket


@dataclass(frozen=True)
class TensorHeader:
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output; ``shape`` mixes sizes and names of dimensions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """``files[0]`` is the ONNX file, the others its external data; ``sha256`` has one digest per file. ``folder`` is what their
    address has between ``model/`` and their name; ``bytes`` is their size together."""

    files: tuple[str, ...]
    sha256: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    folder: str
    bytes: int


@dataclass(frozen=True)
class GenerationSpec:
    """Greedy decoding of ``new_tokens`` tokens; ``prompt`` is None where the input ``input_ids`` is the prompt."""

    new_tokens: int
    cache_dtype: str
    prompt: tuple[int, ...] | None


@dataclass(frozen=True)
class AudioSpec:
    """The front end that makes the graph input ``input`` from recordings; rows of ``samples`` samples at ``rate`` Hz.

    ``kind``: ``whisper`` (log-mel within 8 decades of the row's peak, [rows, mels, frames]), ``decibels`` (CLAP, [rows, 1 or with fusion 4,
    frames, mels]), ``waveform`` (wav2vec2, [rows, samples], each recording at mean 0 and variance 1 with ``standardise``). A longer
    recording is cut every ``row_step`` samples, or only its beginning is taken where that is 0. ``mel_scale`` slaney has filters of area 1.
    """

    input: str
    kind: Literal["whisper", "decibels", "waveform"]
    rate: int
    samples: int
    row_step: int
    padding: Literal["zeros", "repeat"] = "zeros"
    standardise: bool = False
    fusion: bool = False
    window: int = 400
    hop: int = 160
    mels: int = 80
    mel_scale: Literal["slaney", "htk"] = "slaney"
    minimum_hz: float = 0.0
    maximum_hz: float = 8000.0


@dataclass(frozen=True)
class ChunkSpec:
    """How files are cut for loading: every chunk but a file's last has ``bytes`` bytes; by file, its size and the SHA-256 of each chunk."""

    bytes: int
    sizes: dict[str, int]
    digests: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class RecordedPipeline:
    """A compute pipeline as text: WGSL and, as JSON, the entries of its bind group layouts, or "auto"."""

    label: str
    code: str
    entry_point: str
    constants: dict[str, float]
    layout: str


@dataclass(frozen=True)
class Optimizations:
    """Switches of the page, all off by default: see docs/web-optimizations.md.

    With ``audio`` the inputs hold recordings (``samples`` float32, ``lengths`` int32) at ``sample_rate`` Hz in place of ``audio.input``.
    Graphs named ``skeleton:NAME`` in ``Open.graphs`` are NAME without its weights, for ``precompilation``; ``zero_bytes`` says by graph
    how many bytes of zeros stand for them. ``pipelines`` were recorded in an earlier start and are compiled first of all.
    ``runtime_query`` follows the addresses of the runtime's own files. ``keep`` stores chunks in the browser's cache. ``tuned`` are
    numbers by "adapter|what", of which the page takes its live adapter's: see remembered.py.
    """

    precompilation: bool = False
    gpu_audio: bool = False
    parallel_loading: bool = False
    readback: Literal["plain", "woken", "auto"] = "plain"
    audio: AudioSpec | None = None
    sample_rate: int = 0
    chunks: ChunkSpec | None = None
    keep: bool = False
    zero_bytes: dict[str, int] = field(default_factory=dict)
    pipelines: tuple[RecordedPipeline, ...] = ()
    runtime_query: str = ""
    tuned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ServedGeneration:
    """How a served model decodes; ``prompt`` is None where the request's ``input_ids`` are the prompt."""

    cache_dtype: str
    prompt: tuple[int, ...] | None


@dataclass(frozen=True)
class SampleTimes:
    """``total_ns`` of one iteration; ``token_ns`` is the time from its start at which each token was known."""

    total_ns: int
    token_ns: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Message:
    """A reply carries the ``id`` of its request; a message that answers no request has id 0."""

    id: int = 0


# Requests, Python to page.


@dataclass(frozen=True, kw_only=True)
class Detect(Message):
    """Read what this browser offers."""


@dataclass(frozen=True, kw_only=True)
class Open(Message):
    """Everything a launch needs to know; its tensors are the inputs of every iteration. Nothing is loaded yet."""

    provider: Provider
    precision: str
    threads: int | None
    device_type: Literal["cpu", "gpu", "npu"]
    power_preference: Literal["low-power", "high-performance"] | None
    software_adapter: bool
    dimensions: dict[str, int]
    graphs: dict[str, GraphSpec]
    generation: GenerationSpec | None
    optimizations: Optimizations = Optimizations()


@dataclass(frozen=True, kw_only=True)
class Fetch(Message):
    """Fetch the model's files and check their digests."""


@dataclass(frozen=True, kw_only=True)
class Load(Message):
    """Start the runtime and get the device."""


@dataclass(frozen=True, kw_only=True)
class Compile(Message):
    """Create the inference sessions."""


@dataclass(frozen=True, kw_only=True)
class First(Message):
    """One iteration, with its outputs."""


@dataclass(frozen=True, kw_only=True)
class Sample(Message):
    count: int


@dataclass(frozen=True, kw_only=True)
class Count(Message):
    """Count nodes by execution provider, in sessions made for it: untimed, after everything that is timed."""


@dataclass(frozen=True, kw_only=True)
class TimeNodes(Message):
    """Time nodes by execution provider, in a model made for it: nothing can be measured afterwards. Facts as in ``node_times.ts``."""


@dataclass(frozen=True, kw_only=True)
class Inspect(Message):
    """What really ran, and memory."""


@dataclass(frozen=True, kw_only=True)
class LoseDevice(Message):
    """Destroy the GPU device or the WebNN context: how a lost device is provoked in tests."""


# Requests of the language-model engine (engines/wgsl), Python to page. Tokens are pulled: the engine runs ahead, NextTokens waits for more.


@dataclass(frozen=True, kw_only=True)
class LanguageModelMessage(Message):
    """``model`` is the name that Python gave one of the page's language models."""

    model: str = ""


@dataclass(frozen=True, kw_only=True)
class LoadLanguageModel(LanguageModelMessage):
    """Get a device, make the buffers and begin to compile. ``folder`` is what the files' address has between ``model/`` and their name.
    With ``keep`` files whose digest is stated stay in the browser's cache. Answer: Facts."""

    decoder: DecoderSpec
    engine: EngineSpec
    files: tuple[FileSpec, ...]
    matrices: tuple[MatrixSpec, ...]
    vectors: tuple[VectorSpec, ...]
    folder: str
    power_preference: Literal["low-power", "high-performance"] | None
    software_adapter: bool
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class LoadWeights(LanguageModelMessage):
    """Fetch one file, check it, and upload what it holds. Answer: Timed."""

    file: str


@dataclass(frozen=True, kw_only=True)
class CompileLanguageModel(LanguageModelMessage):
    """Wait for the pipelines and make the rest. Answer: Facts, with ``waited_ns``."""


@dataclass(frozen=True, kw_only=True)
class GenerateTokens(LanguageModelMessage):
    """Begin to answer ``prompt``; what the cache already holds of it is not computed again. ``stop``: sequences of tokens that end the
    answer (and are part of it). Answer: Facts with ``reused_tokens``, before anything is computed; of an engine with a batch also the
    ``sequence``, a number, and ``began_ns`` by the page's clock."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingSpec
    stop: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class NextTokens(LanguageModelMessage):
    """Tokens since the last NextTokens, as soon as there is one. Answer: TokenBatch."""


@dataclass(frozen=True, kw_only=True)
class NextOfBatch(LanguageModelMessage):
    """What came of every sequence since the last NextOfBatch, as soon as there is something. Answer: BatchTokens."""


@dataclass(frozen=True, kw_only=True)
class CancelTokens(LanguageModelMessage):
    """End the running answer: at most the steps that were already submitted still run. Answer: Done once they have. ``sequence`` of a
    batch ends at once, and the others go on; 0 ends all."""

    sequence: int = 0


@dataclass(frozen=True, kw_only=True)
class TruncateCache(LanguageModelMessage):
    """Forget what comes after ``length`` tokens. Answer: Facts with ``length``, which is less where a quantised group had to go whole."""

    length: int


@dataclass(frozen=True, kw_only=True)
class ComputeLogits(LanguageModelMessage):
    """Logits float32 [tokens, vocabulary] of every position of ``tokens``, after the cache was emptied; ``path`` says by which kernels.
    Answer: Facts with the tensor ``logits``."""

    tokens: tuple[int, ...]
    path: Literal["prefill", "decode"]


@dataclass(frozen=True, kw_only=True)
class InspectLanguageModel(LanguageModelMessage):
    """Bytes by use, pipelines, speed of the last answer. Answer: Facts."""


@dataclass(frozen=True, kw_only=True)
class CloseLanguageModel(LanguageModelMessage):
    """Free the model's buffers and its device. Answer: Done."""


@dataclass(frozen=True, kw_only=True)
class TimeCopies(LanguageModelMessage):
    """Copy one buffer of ``bytes`` to another ``repeats`` times in one submit: the floor of a benchmark. Answer: Timed, until the device
    is done."""

    bytes: int
    repeats: int


@dataclass(frozen=True, kw_only=True)
class ProfileDecoding(LanguageModelMessage):
    """Time the kernels of a decoding step at a context of ``length`` tokens by the GPU's own clock, each over all layers. With ``shapes``
    (workgroup size, lanes of a row, rows of a team) every matrix-vector product in each of them. What the cache held is forgotten.
    ``budget_ms`` bounds the search. Answer: Facts."""

    length: int
    shapes: tuple[tuple[int, ...], ...]
    budget_ms: int


@dataclass(frozen=True, kw_only=True)
class RunKernel(LanguageModelMessage):
    """Run one kernel of engines/wgsl, ``repeats`` times one after the other, on the message's tensors, which are bound by their names
    ``group.binding``, and return those in ``outputs``: for tests and benchmarks. Answer: Facts with the outputs, as uint8."""

    kernel: str
    constants: dict[str, float | str]
    workgroups: tuple[int, ...]
    outputs: tuple[str, ...]
    subgroups: bool | None
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Prepare(Message):
    """Fetch, load and compile as ``Open.optimizations`` says, overlapped where it says so; the reply's facts tell when what happened."""


@dataclass(frozen=True, kw_only=True)
class AudioFeatures(Message):
    """Features of the recordings in the tensors, made ``repeats`` times; ``crops`` are the three fractions that place a fusion's crops."""

    audio: AudioSpec
    sample_rate: int
    where: Literal["gpu", "cpu"]
    threads: int = 64
    subgroups: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    repeats: int = 1
    crops: tuple[float, ...] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class RecordPipelines(Message):
    """The compute pipelines that were made so far, as RecordedPipeline, for the next start; ``model`` names a served one."""

    model: str = ""


@dataclass(frozen=True, kw_only=True)
class CompileKernels(Message):
    """Compile every audio kernel in every variant that the device has the features for, which are told too."""


@dataclass(frozen=True, kw_only=True)
class TryReadback(Message):
    """Time a small readback, plain and woken in turn."""

    rounds: int = 7


@dataclass(frozen=True, kw_only=True)
class Evict(Message):
    """Remove a share of the kept chunks, as a browser that needs room does: how that is provoked in tests."""

    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tune(Message):
    """Find the fastest variant of the audio front end's kernels for the recordings in the tensors, within ``budget_ms``."""

    audio: AudioSpec
    sample_rate: int
    budget_ms: int = 4000


# Requests to models that stay open and take other inputs each time; several may be in one page, by the names that Python gives them.


@dataclass(frozen=True, kw_only=True)
class OpenModel(Message):
    """Fetch, check and compile a model; ModelProgress comes meanwhile, ModelOpened at the end. Fields as in Open, but for what in
    ``optimizations`` a first pass is needed for: skeletons, and recordings, which come with each request at the rate of ``audio``."""

    model: str
    provider: Provider
    precision: str
    threads: int | None
    device_type: Literal["cpu", "gpu", "npu"]
    power_preference: Literal["low-power", "high-performance"] | None
    software_adapter: bool
    graphs: dict[str, GraphSpec]
    generation: ServedGeneration | None
    optimizations: Optimizations = Optimizations()


@dataclass(frozen=True, kw_only=True)
class Infer(Message):
    """One forward pass of the tensors that come with it."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Decode(Message):
    """Greedy decoding of at most ``new_tokens`` tokens, a DecodedToken each, until every row has come to one of ``end_tokens``.
    ``cache_tokens`` are the positions of the key-value cache."""

    model: str
    new_tokens: int
    cache_tokens: int
    end_tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CancelRequest(Message):
    """End the Decode with the id ``request`` after its next token."""

    request: int


@dataclass(frozen=True, kw_only=True)
class CloseModel(Message):
    model: str


@dataclass(frozen=True, kw_only=True)
class LoseModelDevice(Message):
    """As LoseDevice, of a served model."""

    model: str


@dataclass(frozen=True, kw_only=True)
class PageMemory(Message):
    """What the page's models and GPU buffers hold."""


@dataclass(frozen=True, kw_only=True)
class Echo(Message):
    """Send the tensors back: how fast the bridge is."""


@dataclass(frozen=True, kw_only=True)
class ShareFiles(Message):
    """Open two files of the page's own and write these marks into them, by which Python finds them; Facts with the ``reason`` if not."""

    to_page: str
    from_page: str


@dataclass(frozen=True, kw_only=True)
class UseFiles(Message):
    """Whether Python ``found`` them: large tensors go by them from now on; otherwise they are removed."""

    found: bool


@dataclass(frozen=True, kw_only=True)
class ReleaseStored(Message):
    """Python has read the tensors that a reply had stored there."""

    stored_at: int


# Replies and events, page to Python.


@dataclass(frozen=True, kw_only=True)
class Done(Message):
    pass


@dataclass(frozen=True, kw_only=True)
class Opened(Message):
    clock_resolution_ns: int


@dataclass(frozen=True, kw_only=True)
class Timed(Message):
    ns: int


@dataclass(frozen=True, kw_only=True)
class Sampled(Message):
    """``bytes_read_back`` is what one iteration copies from the device or the wasm heap into the page's own arrays."""

    samples: tuple[SampleTimes, ...]
    bytes_read_back: int


@dataclass(frozen=True, kw_only=True)
class TokenBatch(Message):
    """``token_ns`` is the time from the answer's start at which each token was known; ``logprobs`` is empty unless asked for. ``reason``,
    once finished: stop, length, context or cancelled; otherwise empty."""

    tokens: tuple[int, ...]
    token_ns: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class BatchTokens(Message):
    """As TokenBatch, of the sequences of a batch that have something to tell; none where none runs, or while a prompt is computed."""

    parts: tuple[SequenceTokens, ...]


@dataclass(frozen=True, kw_only=True)
class Counted(Message):
    """Nodes by execution provider; empty where the engine does not say."""

    nodes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Facts(Message):
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure(Message):
    """``error_class`` is one of ``errors.ERROR_CLASSES``."""

    error_class: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Console(Message):
    level: Literal["error", "warn"]
    text: str


LANGUAGE_MODEL_REQUESTS = (
    LoadLanguageModel,
    LoadWeights,
    CompileLanguageModel,
    GenerateTokens,
    NextTokens,
    NextOfBatch,
    CancelTokens,
    TruncateCache,
    ComputeLogits,
    InspectLanguageModel,
    CloseLanguageModel,
    TimeCopies,
    ProfileDecoding,
    RunKernel,
)


@dataclass(frozen=True, kw_only=True)
class ModelProgress(Message):
    """An event of OpenModel, with its id: where a component is."""

    component: str
    phase: Literal["fetch", "verify", "compile"]
    loaded_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelOpened(Message):
    """``compile_ns`` is what was left after the last file had come. ``facts``: engine_version, threads, device (the adapter's facts;
    None on wasm), loading (bytes by where they came from; None where files came whole), ahead_ms of recorded pipelines, readback (the
    one that is used, and its trial), adapter_key."""

    fetch_ns: int
    compile_ns: int
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Inferred(Message):
    """The outputs are its tensors. ``ns`` is the page's own time, readback included."""

    ns: int


@dataclass(frozen=True, kw_only=True)
class DecodedToken(Message):
    """An event of Decode, with its id: one token a row, known ``ns`` after the start."""

    index: int
    token_ids: tuple[int, ...]
    ns: int


@dataclass(frozen=True, kw_only=True)
class Decoded(Message):
    """Its tensors are ``token_ids`` int64 [rows, tokens] and ``logits`` [rows, vocabulary] of the first token."""

    token_ns: tuple[int, ...]
    cancelled: bool


OPTIMIZED = (AudioSpec, ChunkSpec, RecordedPipeline, Optimizations)
SPECS = (TensorHeader, TensorSpec, GraphSpec, GenerationSpec, ServedGeneration, *OPTIMIZED)
TENSOR_TYPES = (*SPECS, SampleTimes, *language_model.SPECS)
SERVING = (OpenModel, Infer, Decode, CancelRequest, CloseModel, LoseModelDevice, PageMemory, Echo)
SHARING = (ShareFiles, UseFiles, ReleaseStored)
OPTIMIZING = (Prepare, RecordPipelines, AudioFeatures, CompileKernels, TryReadback, Tune, Evict)
MEASURING = (Detect, Open, Fetch, Load, Compile, First, Sample, Count, TimeNodes, Inspect, LoseDevice)
REQUESTS = (*MEASURING, *SERVING, *SHARING, *OPTIMIZING, *LANGUAGE_MODEL_REQUESTS)
EVENTS = (ModelProgress, DecodedToken)  # they come before the reply of their request and carry its id
REPLIES = (
    Done,
    Opened,
    Timed,
    Sampled,
    Counted,
    TokenBatch,
    BatchTokens,
    Facts,
    Failure,
    Console,
    ModelOpened,
    Inferred,
    Decoded,
    *EVENTS,
)


@dataclass(frozen=True)
class Stored:
    """Where in the shared file the tensors of a message are."""

    at: int
    headers: tuple[TensorHeader, ...]

    @property
    def bytes(self) -> int:
        """From ``at`` to the end of the last one that is not empty."""
        return max((header.offset + header.bytes for header in self.headers if header.bytes), default=0)


@dataclass(frozen=True)
class Frame:
    """A message as it came, with its tensors: views into the frame's bytes, or ``stored`` outside of it."""

    message: Message
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    stored: Stored | None = None


def layout(tensors: Mapping[str, np.ndarray]) -> tuple[tuple[TensorHeader, ...], int]:
    """Where each tensor's bytes go, and how many all take."""
    headers, offset = [], 0
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            raise TypeError(f"tensor '{name}' is {array.dtype.name}; the page takes {', '.join(DTYPES)}")
        headers.append(TensorHeader(name, array.dtype.name, array.shape, offset, array.nbytes))
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    return tuple(headers), offset


def encode(message: Message, tensors: Mapping[str, np.ndarray] | None = None) -> str | bytearray:
    """The frame: text without tensors, binary with them. Each tensor is copied once, into its place in the frame."""
    if not tensors:
        return _json(message)
    headers, size = layout(tensors)
    text = _json(message, tensors=[dataclasses.asdict(header) for header in headers]).encode()
    text += b" " * (-(4 + len(text)) % ALIGNMENT)
    frame = bytearray(4 + len(text) + size)
    struct.pack_into("<I", frame, 0, len(text))
    frame[4 : 4 + len(text)] = text
    for header, array in zip(headers, tensors.values(), strict=True):
        if array.size:
            place = np.frombuffer(frame, array.dtype, array.size, 4 + len(text) + header.offset)
            np.copyto(place.reshape(array.shape), array)
    return frame


def encode_stored(message: Message, stored: Stored) -> str:
    """The frame of a message whose tensors are in the shared file."""
    return _json(message, tensors=[dataclasses.asdict(header) for header in stored.headers], stored_at=stored.at)


def _json(message: Message, **more: Any) -> str:
    return json.dumps({"type": type(message).__name__, **dataclasses.asdict(message), **more})


def decode(frame: str | bytes | bytearray) -> Frame:
    """The message of a frame that the page sent; ValueError, KeyError or TypeError where it is not one of REPLIES."""
    body, data = frame, memoryview(b"")
    if not isinstance(frame, str):
        if len(frame) < 4:
            raise ValueError("a binary frame without a header")
        length = struct.unpack_from("<I", frame)[0]
        body, data = bytes(frame[4 : 4 + length]).decode(), memoryview(frame)[4 + length :]
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("the page sent a message that is no object")
    headers = tuple(TensorHeader(**header) for header in fields.pop("tensors", []))
    stored_at = fields.pop("stored_at", None)
    kinds = {kind.__name__: kind for kind in REPLIES}
    kind = kinds.get(fields.pop("type"))
    if kind is None:
        raise ValueError("the page sent a message of an unknown type")
    if kind is Sampled:
        fields["samples"] = tuple(SampleTimes(s["total_ns"], tuple(s["token_ns"])) for s in fields["samples"])
    if kind is BatchTokens:
        fields["parts"] = tuple(SequenceTokens(**part) for part in fields["parts"])
    message = kind(**fields)
    if isinstance(message, Failure) and message.error_class not in ERROR_CLASSES:
        raise ValueError(f"the page sent an unknown error class '{message.error_class}'")
    if stored_at is not None:
        return Frame(message, stored=_checked(Stored(stored_at, headers)))
    return Frame(message, {header.name: tensor(header, data) for header in headers})


def _checked(stored: Stored) -> Stored:
    numbers = [stored.at, *(number for header in stored.headers for number in (header.offset, header.bytes))]
    if not all(type(number) is int and 0 <= number <= SHARED_LIMIT_BYTES for number in numbers):
        raise ValueError("the page sent places that no shared file has")
    return stored


def tensor(header: TensorHeader, data: memoryview) -> np.ndarray:
    """The tensor as a view of ``data``, from which its offset counts. Raises ValueError where it has no such place or type."""
    if header.dtype not in DTYPES:
        raise ValueError(f"the page sent a tensor of unknown type '{header.dtype}'")
    return np.frombuffer(data[header.offset : header.offset + header.bytes], header.dtype).reshape(header.shape)


def _typescript(hint: Any) -> str:
    """The TypeScript type of a Python type hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_typescript(argument) for argument in arguments)
    if origin is tuple:
        inner = _typescript(arguments[0])
        return f"readonly ({inner})[]" if "|" in inner or " " in inner else f"readonly {inner}[]"
    if origin is dict:
        return f"Record<string, {_typescript(arguments[1])}>"
    simple: dict[Any, str] = {
        str: "string",
        int: "number",
        float: "number",
        bool: "boolean",
        Any: "unknown",
        type(None): "null",
    }
    return simple.get(hint) or hint.__name__


def _interface(kind: type) -> str:
    hints = typing.get_type_hints(kind)
    lines = [f"  {name}: {_typescript(hint)};" for name, hint in hints.items()]
    if issubclass(kind, Message):
        lines.insert(0, f'  type: "{kind.__name__}";')
    return "\n".join([f"export interface {kind.__name__} {{", *lines, "}"])


def typescript() -> str:
    """The source of ``browser/src/protocol.ts``."""
    parts = ["// Generated by `python -m ipfs_accelerate_py.web.protocol`; change that module, not this file."]
    parts += [_interface(kind) for kind in (*TENSOR_TYPES, *REQUESTS, *REPLIES)]
    requests = " | ".join(kind.__name__ for kind in LANGUAGE_MODEL_REQUESTS)
    parts.append(f"export type LanguageModelRequest = {requests};")
    parts.append("export type Request = " + " | ".join(kind.__name__ for kind in REQUESTS) + ";")
    parts.append("export type Reply = " + " | ".join(kind.__name__ for kind in REPLIES) + ";")
    parts.append("export type ErrorClass = " + " | ".join(f'"{name}"' for name in ERROR_CLASSES) + ";")
    parts.append("export type DataType = " + " | ".join(f'"{name}"' for name in DTYPES) + ";")
    for name, value in (("ALIGNMENT", ALIGNMENT), ("SHARED_BYTES", SHARED_BYTES), ("SHARED_LIMIT_BYTES", SHARED_LIMIT_BYTES)):
        parts.append(f"export const {name} = {value};")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(typescript(), end="")
