"""Which bytes of a folder are which weights of a decoder, by its files' headers alone: a transformers model in safetensors, or low-bit
weights (quantize/stored.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.loading import read_config, read_json, weight_files
from ..quantize import stored
from ..quantize.safetensors_file import Entry, entries
from .language_model_protocol import DecoderSpec, FileSpec, LayerSpec, MatrixSpec, PlaneSpec, VectorSpec, WeightFormat
from .rotary import rotary_frequencies

ARCHITECTURES = ("llama", "qwen2", "mistral")
# A file comes into the page as one block of memory.
LARGEST_FILE_BYTES = 2**31 - 1
_DTYPES: Mapping[str, WeightFormat] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelFiles:
    """What the page needs to know of a folder: the decoder, where its weights lie, and the files."""

    folder: Path
    decoder: DecoderSpec
    matrices: tuple[MatrixSpec, ...]
    vectors: tuple[VectorSpec, ...]
    files: tuple[FileSpec, ...]
    max_position_embeddings: int
    end_tokens: tuple[int, ...]

    @property
    def weights_bytes(self) -> int:
        """Bytes of the matrices and norms as stored."""
        planes = [plane for matrix in self.matrices for plane in (*matrix.planes, *([matrix.bias] if matrix.bias else []))]
        return sum(plane.bytes for plane in planes) + sum(vector.plane.bytes for vector in self.vectors)


def read_folder(folder: Path) -> ModelFiles:
    """The folder of a llama, qwen2 or mistral model, in float or in low bits. UserError says what is missing or unsupported."""
    if (folder / stored.MANIFEST).is_file():
        return _read_quantized(folder)
    config = read_config(folder)
    _supported(config)
    tensors: dict[str, Entry] = {}
    paths = weight_files(folder)
    for path in paths:
        tensors |= entries(path)
    matrices = {name: _float_matrix(name, entry) for name, entry in tensors.items() if _is_float(entry, 2)}
    files = [FileSpec(path.name, path.stat().st_size, None) for path in paths]
    return describe(folder, config, matrices, _vectors(tensors), files)


def _read_quantized(folder: Path) -> ModelFiles:
    manifest = stored.read_manifest(folder)
    _supported(manifest["config"])
    tensors: dict[str, Entry] = {}
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        # What is missing or cut short is found here; what was altered, by the page as it loads.
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise UserError(f"{stored.damage_of(folder, shard)} {stored.REPAIR}")
        tensors |= entries(path)
    matrices = {}
    for name, facts in manifest["tensors"].items():
        if "bits" in facts:
            rows, columns = facts["shape"]
            planes = tuple(
                PlaneSpec(plane.rpartition(".")[2], entry.file.name, entry.start, entry.nbytes)
                for plane, entry in tensors.items()
                if plane.startswith(f"{name}.") and entry.dtype in ("U32", "F16")
            )
            matrices[name] = MatrixSpec(
                name, "quantized", facts["bits"], facts["group_size"], rows, columns, planes, None, "float32"
            )
        elif len(facts["shape"]) == 2:
            matrices[name] = _float_matrix(name, tensors[name])
    files = [FileSpec(shard["file"], shard["bytes"], shard["sha256"]) for shard in manifest["shards"]]
    return describe(folder, manifest["config"], matrices, _vectors(tensors), files)


def _is_float(entry: Entry, dimensions: int) -> bool:
    return entry.dtype in _DTYPES and len(entry.shape) == dimensions


def _plane(name: str, entry: Entry) -> PlaneSpec:
    return PlaneSpec(name, entry.file.name, entry.start, entry.nbytes)


def _float_matrix(name: str, entry: Entry) -> MatrixSpec:
    rows, columns = entry.shape
    return MatrixSpec(name, _DTYPES[entry.dtype], 0, 0, rows, columns, (_plane("values", entry),), None, "float32")


def _vectors(tensors: Mapping[str, Entry]) -> dict[str, VectorSpec]:
    return {
        name: VectorSpec(name, _DTYPES[entry.dtype], entry.shape[0], _plane("values", entry))
        for name, entry in tensors.items()
        if _is_float(entry, 1)
    }


def describe(
    folder: Path,
    config: Mapping[str, Any],
    matrices: Mapping[str, MatrixSpec],
    vectors: Mapping[str, VectorSpec],
    files: list[FileSpec],
) -> ModelFiles:
    """Finds a decoder's weights among the tensors of ``folder`` by their transformers names; biases are among ``vectors``.

    UserError for what is missing.
    """
    text = _supported(config)
    table = next((name for name in matrices if name.endswith("embed_tokens.weight")), None)
    if table is None:
        raise UserError(f"{folder} has no token embedding (a tensor named ...embed_tokens.weight).")
    prefix = table.removesuffix("embed_tokens.weight")
    used_matrices: dict[str, MatrixSpec] = {}
    used_vectors: dict[str, VectorSpec] = {}
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    key_value_heads = int(text.get("num_key_value_heads") or heads)
    head_size = int(text.get("head_dim") or hidden // heads)
    inner, vocabulary = int(text["intermediate_size"]), int(text["vocab_size"])

    def matrix(name: str, rows: int, columns: int) -> str:
        found = matrices.get(f"{name}.weight")
        if found is None:
            raise UserError(f"{folder} lacks the tensor {name}.weight.")
        if (found.rows, found.columns) != (rows, columns):
            raise UserError(f"{name}.weight is {found.rows} x {found.columns}; its config.json makes it {rows} x {columns}.")
        bias = vectors.get(f"{name}.bias")
        if bias is not None:
            found = replace(found, bias=bias.plane, bias_dtype=bias.dtype)
        used_matrices[found.name] = found
        return found.name

    def vector(name: str) -> str:
        found = vectors.get(f"{name}.weight")
        if found is None:
            raise UserError(f"{folder} lacks the tensor {name}.weight.")
        used_vectors[found.name] = found
        return found.name

    def layer(index: int) -> LayerSpec:
        at = f"{prefix}layers.{index}."
        attention, forward = f"{at}self_attn.", f"{at}mlp."
        return LayerSpec(
            qkv=(
                matrix(f"{attention}q_proj", heads * head_size, hidden),
                matrix(f"{attention}k_proj", key_value_heads * head_size, hidden),
                matrix(f"{attention}v_proj", key_value_heads * head_size, hidden),
            ),
            output=matrix(f"{attention}o_proj", hidden, heads * head_size),
            gate_up=(matrix(f"{forward}gate_proj", inner, hidden), matrix(f"{forward}up_proj", inner, hidden)),
            down=matrix(f"{forward}down_proj", hidden, inner),
            attention_norm=vector(f"{at}input_layernorm"),
            feed_forward_norm=vector(f"{at}post_attention_layernorm"),
        )

    embedding = matrix(f"{prefix}embed_tokens", vocabulary, hidden)
    head = next((name for name in matrices if name.endswith("lm_head.weight")), None)
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))) or head is None
    frequencies, factor = rotary_frequencies(text, head_size)
    decoder = DecoderSpec(
        hidden_size=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        intermediate_size=inner,
        vocabulary=vocabulary,
        norm_epsilon=float(text.get("rms_norm_eps", 1e-6)),
        sliding_window=_window(text),
        inverse_frequencies=tuple(float(value) for value in frequencies),
        rotary_factor=factor,
        layers=tuple(layer(index) for index in range(int(text["num_hidden_layers"]))),
        embedding=embedding,
        final_norm=vector(f"{prefix}norm"),
        output_matrix=embedding if tied or head is None else matrix(head.removesuffix(".weight"), vocabulary, hidden),
    )
    end = _end_tokens(folder, text, config)
    needed = {
        plane.file for matrix in used_matrices.values() for plane in (*matrix.planes, *([matrix.bias] if matrix.bias else []))
    }
    needed |= {vector.plane.file for vector in used_vectors.values()}
    return ModelFiles(
        folder=folder,
        decoder=decoder,
        matrices=tuple(used_matrices.values()),
        vectors=tuple(used_vectors.values()),
        files=tuple(_checked(file) for file in files if file.name in needed),
        max_position_embeddings=int(text.get("max_position_embeddings", 2**31 - 1)),
        end_tokens=end,
    )


def _end_tokens(folder: Path, text: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, ...]:
    """Those of generation_config.json where there is one, as chat models have more of them there."""
    path = folder / "generation_config.json"
    told = read_json(path).get("eos_token_id") if path.is_file() else None
    end = next((value for value in (told, text.get("eos_token_id"), config.get("eos_token_id")) if value is not None), ())
    return tuple(end) if isinstance(end, (list, tuple)) else (int(end),)


def _supported(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the language model; UserError where the kernels do not have one of its parts."""
    text: Mapping[str, Any] = config.get("text_config") or config
    kind = text.get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"The WGSL engine runs {', '.join(ARCHITECTURES)} and not '{kind}': run it with --platform webgpu, which uses onnxruntime-web."
        )
    if text.get("hidden_act", "silu") != "silu":
        raise UserError(
            f"The WGSL engine has the activation silu and not '{text['hidden_act']}': "
            "run it with --platform webgpu, which uses onnxruntime-web."
        )
    heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
    key_value_heads = int(text.get("num_key_value_heads") or heads)
    size = int(text.get("head_dim") or hidden // heads)
    if heads % key_value_heads:
        raise UserError(f"{heads} heads cannot share {key_value_heads} key-value heads evenly.")
    if size % 8:
        raise UserError(f"The WGSL engine needs heads of a multiple of 8 channels; these have {size}.")
    return text


def _window(text: Mapping[str, Any]) -> int | None:
    """Tokens that a layer sees. UserError where layers differ."""
    window = text.get("sliding_window")
    if window is None or text.get("use_sliding_window") is False:
        return None
    layers = int(text["num_hidden_layers"])
    if text.get("model_type") != "qwen2":
        return int(window)
    full = int(text.get("max_window_layers", 0))  # the first layers see everything
    if full >= layers:
        return None
    if full > 0:
        raise UserError(
            f"The first {full} of {layers} layers have no sliding window and the others have: the WGSL engine takes one for all."
        )
    return int(window)


def _checked(file: FileSpec) -> FileSpec:
    if file.bytes > LARGEST_FILE_BYTES:
        raise UserError(
            f"{file.name} has {file.bytes} bytes and a page takes files of at most {LARGEST_FILE_BYTES}: save the model in smaller shards "
            "(save_pretrained(max_shard_size='1GB'))."
        )
    return file
