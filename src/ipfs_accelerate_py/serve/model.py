"""From what a person names to a service: low-bit weights found or made, a browser opened, the tokenizer beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.processing.processor import Processor
from ..models.processing.text import load_tokenizer
from ..models.registry import resolve
from ..quantize import stored
from ..quantize.cached import GROUP_SIZE, cached_folder
from ..quantize.embedded import embedded_folder
from ..quantize.folder import Progress, Request
from ..quantize.sources import open_source
from ..web.browsers import Browser
from ..web.language_model import LanguageModel
from .detokenize import Decoding
from .embeddings import Embedder
from .engine import BrowserEngine
from .prompt import Prompts
from .scheduler import Limits
from .service import Service

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Options:
    """``bits`` and ``group_size`` of weights that are made now; a folder of low-bit weights has its own. ``context`` in tokens,
    ``batch`` answers at a time, each with a cache of its own."""

    bits: int | None = None
    group_size: int = GROUP_SIZE
    key_bits: int = 16
    value_bits: int = 16
    context: int | None = None
    batch: int = 1
    browser: Browser | str = "auto"
    adapter: str = "auto"
    size: str | None = None
    weights: str = "auto"
    embeddings: str | None = "bert"


def quantized_folder(model: str, options: Options, on_progress: OnProgress = lambda _: None) -> Path:
    """The folder that ``model`` names, or low-bit weights of it in the cache, made with the rtn solver where they are not there yet."""
    embedded = embedded_folder(model, options.size, options.weights) if options.bits is None else None
    path = embedded or Path(model).expanduser()
    if (path / stored.MANIFEST).is_file():
        if options.bits is not None:
            own = stored.read_manifest(path)["request"]["bits"]
            if own != options.bits:
                raise UserError(f"'{model}' holds weights of {own} bits: leave --bits out, or name the float model.")
        return path
    source = open_source(resolve(model, options.size, options.weights))
    request = Request(origin=source.origin, bits=options.bits or 4, group_size=options.group_size, solver="rtn")
    return cached_folder(source, request, on_progress)


def open_service(
    model: str, options: Options, *, limits: Limits | None = None, on_progress: OnProgress = lambda _: None
) -> Service:
    """Everything that a server needs, loaded and ready. Raises UserError, UnavailableError or LaunchError. Close it."""
    embedder = Embedder(options.embeddings) if options.embeddings is not None else None
    folder = quantized_folder(model, options, on_progress)
    manifest = stored.read_manifest(folder)
    config = manifest["config"]
    tokenizer = load_tokenizer(folder, int(config["vocab_size"]))
    ends = Processor(folder).end_tokens(config.get("eos_token_id"))
    make = partial(
        LanguageModel,
        options.browser,
        folder,
        key_bits=options.key_bits,
        value_bits=options.value_bits,
        context_length=options.context,
        batch=options.batch,
        adapter=options.adapter,
    )
    prompts = Prompts(tokenizer, folder)
    engine = BrowserEngine(make, sorted(ends), options.key_bits, options.value_bits)
    synthetic = str(manifest["request"]["origin"]).startswith("synthetic:")
    facts: dict[str, Any] = {
        "weights": "synthetic" if synthetic else "trained",
        "bits_per_weight": round(manifest["totals"]["bits_per_weight"], 3),
        "tokenizer": "synthetic" if tokenizer.synthetic else "the model's own",
    }
    name = Path(model).expanduser().resolve().name if Path(model).expanduser().is_dir() else model
    return Service(name, engine, prompts, Decoding(tokenizer, ends), embedder, facts, limits or Limits())
