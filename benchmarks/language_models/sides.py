"""Both sides of a language-model benchmark, each a fresh browser: our WGSL engine, and onnxruntime-web on the same shape and width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.registry import ModelReference, resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.platforms.registry import platform
from ipfs_accelerate_py.quantize.blank import write_blank
from ipfs_accelerate_py.quantize.folder import Request, quantize_folder
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import uniform
from ipfs_accelerate_py.quantize.sources import open_source
from ipfs_accelerate_py.quantize.stored import MANIFEST
from ipfs_accelerate_py.web.language_model import LanguageModel
from ipfs_accelerate_py.web.language_model_folder import ModelFiles

# onnxruntime-web has no 3-bit weights, and our exported graphs are int4 or float.
PEER_PRECISIONS: Mapping[int, str] = {4: "int4", 16: "float16", 32: "float32"}


@dataclass(frozen=True)
class Run:
    """One launch: seconds from prompt to first token, and seconds a token after it, one value for each generation."""

    first_token_s: tuple[float, ...]
    token_s: tuple[float, ...]
    facts: dict[str, Any]


def low_bit_folder(reference: ModelReference, bits: int, group_size: int) -> Path:
    """The model at these bits, made once: quantised where it has weights, random codes of its shape where they are synthetic, which
    take the same bytes and work and are there in seconds."""
    folder = cache_folder() / "low-bit" / f"benchmark-{reference.model_class}-{reference.size}-{bits}-{group_size}"
    source = open_source(reference)
    if reference.weights != "synthetic":
        quantize_folder(source, Request(reference.origin, bits, group_size, "rtn"), folder)
    elif not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_blank(source.config, uniform(source.config, Format(bits, group_size)), folder, seed=0)
    return folder


def ours(browser: str, folder: Path | ModelFiles, prompt: int, new_tokens: int, generations: int, **options: Any) -> Run:
    """Our engine. The first generation is warm-up; each of the others starts from an empty cache. Times are the page's own."""
    model = LanguageModel(browser, folder, context_length=prompt + new_tokens, **options)
    with model:
        model.load()
        ids = np.random.default_rng(0).integers(0, model.files.decoder.vocabulary, prompt).tolist()
        first, each = [], []
        for generation in range(generations + 1):
            model.truncate(0)
            for _ in model.generate(ids, max_new_tokens=new_tokens, stop=()):
                pass
            last = model.metrics()["last_answer"]
            if generation > 0:
                first.append(last["prefill_ns"] / 1e9)
                each.append(last["decode_ns"] / last["decoded_tokens"] / 1e9)
        metrics = model.metrics()
        facts = {
            name: metrics[name]
            for name in ("device", "variant", "buffers_bytes", "dispatches_per_token", "readback_ns", "version")
        }
        facts |= {
            "steps_per_submit": metrics["last_answer"]["steps_per_submit"],
            "copy_bytes_per_second": model.copy_bytes_per_second(),
        }
        return Run(tuple(first), tuple(each), facts)


def theirs(
    browser: str, reference: ModelReference, precision: str, prompt: int, new_tokens: int, generations: int, software: bool
) -> Run:
    """onnxruntime-web on the exported graph, its cache static and on the GPU, logits read back for each token as its users do."""
    work = workload(reference, batch_size=1, sequence_length=prompt, new_tokens=new_tokens, precision=precision)
    folder = prepare_in_child(work, reference, cache_folder() / "models", lambda phase: None)
    options = OpenOptions(folder, "onnxruntime-web", browser, None, load_tensors(folder / "inputs.npz"))
    session: Any = platform("webgpu").open(work, "software" if software else "default", options)
    try:
        session.timed_phases()
        session.timed_first()
        samples = session.timed_samples(generations)
        first = tuple(sample.token_ns[0] / 1e9 for sample in samples)
        each = tuple((sample.token_ns[-1] - sample.token_ns[0]) / (new_tokens - 1) / 1e9 for sample in samples)
        return Run(first, each, session.facts())
    finally:
        session.close()


def peer_reference(model: str, size: str | None) -> ModelReference:
    return resolve(model, size=size, weights="synthetic")


def floor_bytes(files: ModelFiles, prompt: int, new_tokens: int, key_bits: int, value_bits: int) -> float:
    """Bytes that a token must read: all matrices but an untied embedding, and the cache at the middle of the answer."""
    decoder = files.decoder
    unread = decoder.embedding if decoder.output_matrix != decoder.embedding else ""
    planes = [plane for matrix in files.matrices if matrix.name != unread for plane in matrix.planes]
    bits = sum(width + (1 if width < 16 else 0) for width in (key_bits, value_bits))
    cache = (prompt + new_tokens / 2) * len(decoder.layers) * decoder.key_value_heads * decoder.head_size * bits / 8
    return sum(plane.bytes for plane in planes) + cache
