"""Perplexity of our low-bit formats and solvers on held-out text, against llama.cpp's formats of the same model.

    python benchmarks/quantization_quality.py MODEL --held-out FILE [--text FILE] [--device cuda] [--output result.json]

MODEL is a transformers folder of a trained llama, qwen2 or mistral decoder with its tokenizer. --text (not the held-out one) calibrates
gptq. All formats are dequantised by their own reference decoders and run in float32 by the same code on the same windows, so that only
the weights differ. The ratio of perplexities to the float weights' is paired by window, with a 95 % interval (Student's t).

llama.cpp's formats need two packages that are no part of this project: pip install gguf==0.19.0 (Q4_0, Q8_0) and
llama-cpp-python==0.3.36, which builds llama.cpp (Q2_K, Q3_K_S, Q3_K_M, IQ3_XXS, Q4_K_M). They quantise without an importance matrix.
Without the second one its formats are said to be unavailable. Widths must be multiples of 256 for its k-quants.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.machine import fingerprint
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize import architecture
from ipfs_accelerate_py.quantize.calibration import windows
from ipfs_accelerate_py.quantize.folder import Request, quantize_folder, windows_digest
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import uniform
from ipfs_accelerate_py.quantize.quality import Quality, paired_ratio, perplexity
from ipfs_accelerate_py.quantize.sources import Source, open_source
from ipfs_accelerate_py.quantize.stored import QuantizedFolder

Read = Callable[[str], np.ndarray]
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
FILE_TYPES = {"Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "IQ3_XXS": 23, "Q4_K_S": 14, "Q4_K_M": 15}  # llama_ftype of llama.h


@dataclass(frozen=True)
class Candidate:
    """``bits_per_weight`` over all the tensors; ``read`` gives the decoded ones."""

    name: str
    bits_per_weight: float
    read: Read


def ours(source: Source, text: np.ndarray | None, device: str, work: Path, extra_bits: float) -> Iterator[Candidate]:
    """Uniform formats by every solver, and mixed plans with ``extra_bits`` above the uniform one."""
    solvers = ("rtn", "hqq") if text is None else ("rtn", "hqq", "gptq")
    plans: list[tuple[int, int, str, float | None]] = [(bits, 64, solver, None) for bits in (2, 3, 4) for solver in solvers]
    plans += [(bits, 32, solvers[-1], None) for bits in (2, 3, 4)]
    for bits in (2, 3, 4):
        least = uniform(source.config, Format(bits, 64)).bits_per_weight(source.config)
        plans.append((bits, 64, solvers[-1], least + extra_bits))
    plans.append((8, 64, "rtn", None))
    for bits, group, solver, budget in plans:
        calibration = text if solver == "gptq" else None
        request = Request(source.origin, bits, group, solver, budget, windows_digest(calibration))
        folder = work / f"{bits}-{group}-{solver}-{'mixed' if budget else 'uniform'}"
        manifest = quantize_folder(source, request, folder, calibration, device)
        mixed = f" mixed to {budget:.2f}" if budget else ""
        yield Candidate(
            f"{bits} bits, groups of {group}, {solver}{mixed}",
            manifest["totals"]["bits_per_weight"],
            QuantizedFolder(folder).read,
        )


def gguf_name(name: str) -> str:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    part = name.removeprefix(f"model.layers.{architecture.layer_of(name)}.")
    for theirs, short in GGUF_NAMES.items():
        if part.startswith(theirs):
            return f"blk.{architecture.layer_of(name)}.{short}.{part.rpartition('.')[2]}"
    raise UserError(f"GGUF has no name for '{name}'.")


def block_formats(source: Source) -> Iterator[Candidate]:
    """Q4_0 and Q8_0 on every matrix, by the encoder in the package gguf."""
    import gguf

    shapes = architecture.shapes(source.config)
    for kind in ("Q4_0", "Q8_0"):
        type_ = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[type_]
        total = sum(
            math.prod(shape) // block * size if architecture.role(name) else 4 * math.prod(shape)
            for name, shape in shapes.items()
        )

        def read(name: str, type_: Any = type_) -> np.ndarray:
            values = source.read(name)
            if architecture.role(name) is None:
                return values
            return np.ascontiguousarray(gguf.quants.dequantize(gguf.quants.quantize(values, type_), type_), np.float32)

        yield Candidate(f"llama.cpp {kind}, every matrix", 8 * total / sum(math.prod(shape) for shape in shapes.values()), read)


def write_gguf(source: Source, file: Path) -> None:
    """All tensors at float32 with the metadata that llama.cpp's quantiser reads. Rows keep transformers' order: only we read them back."""
    import gguf

    config = source.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_head_count_kv(architecture.key_value_heads(config))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_rope_dimension_count(architecture.head_size(config))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_tokenizer_model("no_vocab")
    for name in architecture.shapes(config):
        writer.add_tensor(gguf_name(name), source.read(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp_formats(source: Source, work: Path) -> Iterator[Candidate]:
    """As ``llama-quantize`` makes them: each a mixture of block types of its own."""
    import gguf
    import llama_cpp

    write_gguf(source, work / "float.gguf")
    shapes = architecture.shapes(source.config)
    for name, number in FILE_TYPES.items():
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = number
        file = work / f"{name}.gguf"
        status = llama_cpp.llama_model_quantize(str(work / "float.gguf").encode(), str(file).encode(), parameters)
        if status != 0:
            print(f"llama.cpp {name}: unavailable, its quantiser refused the model (status {status}); its log says why.")
            continue
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
        total = sum(int(tensor.n_bytes) for tensor in tensors.values())

        def read(key: str, tensors: dict[str, Any] = tensors) -> np.ndarray:
            tensor = tensors[gguf_name(key)]
            decoded = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            return np.ascontiguousarray(decoded, np.float32).reshape(shapes[key])

        yield Candidate(f"llama.cpp {name}", 8 * total / sum(math.prod(shape) for shape in shapes.values()), read)


def theirs(source: Source, work: Path) -> Iterator[Candidate]:
    if importlib.util.find_spec("gguf") is None:
        print("llama.cpp's formats: unavailable, the package gguf is not installed (pip install gguf==0.19.0).")
        return
    yield from block_formats(source)
    if importlib.util.find_spec("llama_cpp") is None:
        print(
            f"{', '.join(FILE_TYPES)}: unavailable, llama-cpp-python is not installed (pip install llama-cpp-python==0.3.36)."
        )
        return
    yield from llama_cpp_formats(source, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="calibrates gptq; it must not be the held-out one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--extra-bits", type=float, default=0.25, help="of the mixed plans, above the uniform ones")
    parser.add_argument("--output", type=Path, help="the mean negative log-likelihood of every window, as JSON")
    chosen = parser.parse_args()
    source = open_source(resolve(str(chosen.model)))
    held_out = windows(chosen.held_out, source.folder, source.config)
    text = None if chosen.text is None else windows(chosen.text, source.folder, source.config)
    reference = perplexity(source.config, held_out, source.read, chosen.device)
    machine = fingerprint()
    print(
        f"{source.origin}: {architecture.float16_bytes(source.config) // 2:,} weights on {machine['cpu_model']}, {chosen.device}"
    )
    print(f"{len(held_out)} windows of {held_out.shape[1]} tokens; perplexity with float weights {reference.perplexity:.3f}")
    print(f"{'format':<44}{'bits a weight':>14}{'perplexity':>12}{'ratio':>9}  95 % interval")
    samples = {"float": reference.nats.tolist()}
    with tempfile.TemporaryDirectory() as work:

        def candidates() -> Iterator[Candidate]:
            yield from theirs(source, Path(work))
            yield from ours(source, text, chosen.device, Path(work), chosen.extra_bits)

        for candidate in candidates():
            found = perplexity(source.config, held_out, candidate.read, chosen.device)
            print(line(candidate, found, reference), flush=True)
            samples[candidate.name] = found.nats.tolist()
    if chosen.output is not None:
        facts = {"model": source.origin, "machine": machine, "held_out_tokens": reference.tokens, "nats_by_window": samples}
        chosen.output.write_text(json.dumps(facts, indent=1, default=str) + "\n")


def line(candidate: Candidate, found: Quality, reference: Quality) -> str:
    ratio, low, high = paired_ratio(found, reference)
    return (
        f"{candidate.name:<44}{candidate.bits_per_weight:>14.3f}{found.perplexity:>12.3f}{ratio:>9.4f}  {low:.4f} to {high:.4f}"
    )


if __name__ == "__main__":
    main()
