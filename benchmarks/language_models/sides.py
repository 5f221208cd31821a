"""Our side of a language-model benchmark, a fresh browser for each launch, and what both sides share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import ModelReference, resolve
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.quantize.blank import write_blank
from ipfs_accelerate_py.quantize.folder import Request, quantize_folder
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import uniform
from ipfs_accelerate_py.quantize.sources import open_source
from ipfs_accelerate_py.quantize.stored import MANIFEST
from ipfs_accelerate_py.web.language_model import LanguageModel
from ipfs_accelerate_py.web.language_model_folder import ModelFiles


@dataclass(frozen=True)
class Shape:
    """What a launch generates: ``generations`` times ``new_tokens`` after ``prompt`` tokens, in ``batch`` sequences at once."""

    prompt: int
    new_tokens: int
    generations: int
    batch: int = 1


@dataclass(frozen=True)
class Run:
    """One launch: seconds from prompt to first token, and seconds a step after it, one value for each generation. A step is a token of
    each sequence. ``phases_ns`` came before."""

    first_token_s: tuple[float, ...]
    token_s: tuple[float, ...]
    facts: dict[str, Any]
    phases_ns: dict[str, int] = field(default_factory=dict)


def low_bit_folder(reference: ModelReference, bits: int, group_size: int, root: Path | None = None) -> Path:
    """The model at these bits, made once: quantised where it has weights, random codes of its shape where they are synthetic, which
    take the same bytes and work and are there in seconds."""
    folder = (root or cache_folder() / "low-bit") / f"benchmark-{reference.model_class}-{reference.size}-{bits}-{group_size}"
    source = open_source(reference)
    if reference.weights != "synthetic":
        quantize_folder(source, Request(reference.origin, bits, group_size, "rtn"), folder)
    elif not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_blank(source.config, uniform(source.config, Format(bits, group_size)), folder, seed=0)
    return folder


def ours(browser: str, folder: Path | ModelFiles, shape: Shape, limit_s: float = 600.0, **options: Any) -> Run:
    """Our engine. The first generation is warm-up; each of the others starts from an empty cache. Times are the page's own."""
    length = shape.prompt + shape.new_tokens
    model = LanguageModel(browser, folder, context_length=length, batch=shape.batch, limit_s=limit_s, **options)
    with model:
        model.load()
        vocabulary = model.files.decoder.vocabulary
        prompts = np.random.default_rng(0).integers(0, vocabulary, (shape.batch, shape.prompt)).tolist()
        first, each = [], []
        for generation in range(shape.generations + 1):
            model.truncate(0)
            times = _single(model, prompts[0], shape) if shape.batch == 1 else _together(model, prompts, shape)
            if generation > 0:
                first.append(times[0])
                each.append(times[1])
        metrics = model.metrics()
        names = ("device", "variant", "buffers_bytes", "dispatches_per_token", "readback_ns", "version", "shapes", "batch")
        facts = {name: metrics[name] for name in names}
        facts |= {
            "steps_per_submit": metrics["last_answer"]["steps_per_submit"],
            "copy_bytes_per_second": model.copy_bytes_per_second(),
        }
        return Run(tuple(first), tuple(each), facts, model.load_ns)


def _single(model: LanguageModel, prompt: list[int], shape: Shape) -> tuple[float, float]:
    for _ in model.generate(prompt, max_new_tokens=shape.new_tokens, stop=()):
        pass
    last = model.metrics()["last_answer"]
    return last["prefill_ns"] / 1e9, last["decode_ns"] / last["decoded_tokens"] / 1e9


def _together(model: LanguageModel, prompts: list[list[int]], shape: Shape) -> tuple[float, float]:
    """Seconds until every sequence has its first token, and of a step while all of them run."""
    answers = [model.start(prompt, max_new_tokens=shape.new_tokens, stop=()) for prompt in prompts]
    times = [np.array([answer.began_ns + token.ns for token in answer]) for answer in answers]
    begin, end = max(each[0] for each in times), min(each[-1] for each in times)
    steps = sum(int(((each > begin) & (each <= end)).sum()) for each in times) / len(times)
    if steps < 1:
        raise UserError(f"{shape.new_tokens} new tokens are too few for {len(prompts)} sequences: no step had all; give more.")
    return (begin - answers[0].began_ns) / 1e9, (end - begin) / steps / 1e9


def peer_reference(model: str, size: str | None) -> ModelReference:
    return resolve(model, size=size, weights="synthetic")


def floor_bytes(files: ModelFiles, shape: Shape, key_bits: int, value_bits: int) -> float:
    """Bytes that a step must read: all matrices but an untied embedding, and the caches at the middle of the answer."""
    decoder = files.decoder
    unread = decoder.embedding if decoder.output_matrix != decoder.embedding else ""
    planes = [plane for matrix in files.matrices if matrix.name != unread for plane in matrix.planes]
    bits = sum(width + (1 if width < 16 else 0) for width in (key_bits, value_bits))
    tokens = shape.batch * (shape.prompt + shape.new_tokens / 2)
    cache = tokens * len(decoder.layers) * decoder.key_value_heads * decoder.head_size * bits / 8
    return sum(plane.bytes for plane in planes) + cache
