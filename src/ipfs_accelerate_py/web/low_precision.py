"""What a decoder needs at 2, 3 or 4 bits: exact bytes of weights and cache, the context that they leave room for, and their quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..graph.names import find, known
from ..models.causal import longest_sequence
from ..models.loading import read_config
from ..models.registry import model_classes
from ..platforms.extras import load_extra
from ..quantize import architecture
from ..quantize.formats import Format
from ..quantize.kv import CacheFormat
from ..quantize.plan import DEFAULT_BUDGETS, Plan, mixed, uniform
from .precompilation import precompile

GROUP_SIZE = 64
PRECISIONS = tuple(DEFAULT_BUDGETS)
MEASURED_WEIGHTS = 200_000_000  # of a trained model, at most, to quantise and measure it on the way
FLOAT_CACHE = CacheFormat(16, 16)
# Bits of keys and values: by default, and where the longest context is asked for. benchmarks/kv_cache_context.py measures their loss.
CACHE_BITS = {2: (4, 4), 3: (4, 4), 4: (8, 8)}
EXTENDED_CACHE_BITS = {2: (4, 2), 3: (4, 2), 4: (4, 4)}


def setup_ultra_low_precision(
    model_name: str,
    model_type: str = "text",
    precision_bits: int = 2,
    mixed_precision: bool = True,
    enable_kv_cache: bool = True,
    extended_context: bool = True,
    browser: str = "chrome",
) -> dict[str, Any]:
    """Plan a decoder's weights at ``precision_bits`` and its key-value cache, from the exact bytes of its shapes.

    ``model_name`` is a published decoder (``llama-7b``) or a transformers folder. With ``mixed_precision`` the matrices where an
    error costs most get more bits, within ``quantize.plan.DEFAULT_BUDGETS``. The context factor is how many more tokens fit
    the memory of the float16 cache at the model's own longest sequence. Returns ``precompilation`` and ``ultra_low_precision``;
    what cannot be had here is None, with the reason beside it. Raises UserError for an unknown model, type or width.
    """
    if model_type != "text":
        raise UserError(f"Low-bit weights are made for language models, model_type 'text', not '{model_type}'.")
    if precision_bits not in PRECISIONS:
        raise UserError(f"precision_bits is {', '.join(map(str, PRECISIONS))}, not {precision_bits}.")
    model = _Model.named(model_name)
    form = Format(precision_bits, GROUP_SIZE)
    plan = uniform(model.config, form)
    budget = max(DEFAULT_BUDGETS[precision_bits], plan.bits_per_weight(model.config)) if mixed_precision else None
    quality: dict[str, Any] | None = None
    if model.folder is not None and _weights(model.config) <= MEASURED_WEIGHTS:
        plan, quality, why = *_measured(model.folder, form, budget), None
    else:
        # A model whose padding and norms alone take more than the budget gets the least width everywhere.
        plan = plan if budget is None else mixed(model.config, form, budget)
        why = (
            f"'{model_name}' names a shape, and no trained weights of it are at hand: name a folder of them."
            if model.folder is None
            else f"The model has {_weights(model.config):,} weights, too many to measure here: run ipfs-accelerate quantize --evaluate."
        )
    cache = FLOAT_CACHE
    if enable_kv_cache:
        cache = CacheFormat(*(EXTENDED_CACHE_BITS if extended_context else CACHE_BITS)[precision_bits])
    precompilation = precompile(model.config, plan, cache, browser)
    return {
        "precompilation": precompilation,
        "ultra_low_precision": {
            "precision_bits": precision_bits,
            **_weight_facts(model.config, plan),
            **_cache_facts(model.config, cache),
            "layers": {name: form.bits for name, form in plan.formats.items()},
            "quality": quality,
            "quality_reason": why,
            "browser": browser,
            "provenance": {
                "bytes": "exact, from the model's shapes",
                "layers": {"uniform": "no choice", "prior": "published priors", "measured": "measured"}[plan.sensitivity],
                "quality": "unavailable" if quality is None else "measured",
                "precompilation": "unavailable" if precompilation["pipelines"] is None else "measured",
            },
        },
    }


@dataclass(frozen=True)
class _Model:
    """``config`` as in config.json; the ``folder`` of trained weights, None where only the shape is known."""

    config: Mapping[str, Any]
    folder: Path | None

    @classmethod
    def named(cls, name: str) -> _Model:
        folder = Path(name).expanduser()
        if folder.is_dir():
            config = read_config(folder)
            architecture.check_supported(config, name)
            return cls(config, folder)
        named = find(name)
        if named is None:
            raise nearest(name, known(), "model")
        kind = model_classes()[named.model_class].transformers_model_types[0]
        config = {"model_type": kind, **named.config}
        architecture.check_supported(config, name)
        return cls(config, None)


def _weights(config: Mapping[str, Any]) -> int:
    return architecture.float16_bytes(config) // 2


def _weight_facts(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    size, float16 = plan.stored_bytes(config), architecture.float16_bytes(config)
    return {
        "bits_per_weight": round(plan.bits_per_weight(config), 4),
        "weight_bytes": size,
        "float16_bytes": float16,
        "memory_reduction_percent": round(100 * (1 - size / float16), 2),
    }


def _cache_facts(config: Mapping[str, Any], cache: CacheFormat) -> dict[str, Any]:
    positions = longest_sequence(config)
    budget = FLOAT_CACHE.bytes_of(config, positions)
    tokens = cache.tokens_in(config, budget)
    per_token, float_per_token = cache.bytes_per_token(config), FLOAT_CACHE.bytes_per_token(config)
    return {
        "kv_cache": {
            "key_bits": cache.key_bits,
            "value_bits": cache.value_bits,
            "recent_tokens_float16": cache.recent_tokens,
            "bytes_per_token": per_token,
            "float16_bytes_per_token": float_per_token,
            "reduction_percent": round(100 * (1 - per_token / float_per_token), 2),
        },
        "kv_budget_bytes": budget,
        "context_extension_factor": round(tokens / positions, 2),
        "max_context_tokens": tokens,
        "model_positions": positions,
    }


def _measured(folder: Path, form: Format, budget: float | None) -> tuple[Plan, dict[str, Any]]:
    """Quantise the folder's weights, with a search, into the cache folder; the plan and the quality that they then have."""
    from ..models.registry import resolve
    from ..quantize.cached import cached_folder
    from ..quantize.folder import Request
    from ..quantize.quality import logit_cosine
    from ..quantize.sources import open_source
    from ..quantize.stored import QuantizedFolder, read_manifest

    load_extra("torch", "torch")
    source = open_source(resolve(str(folder)))
    request = Request(source.origin, form.bits, form.group_size, "rtn", budget)
    output = cached_folder(source, request)
    manifest = read_manifest(output)
    plan = Plan(
        {key: Format(bits, form.group_size) for key, bits in manifest["plan"]["bits"].items()}, manifest["plan"]["sensitivity"]
    )
    cosine = logit_cosine(source.config, source.read, QuantizedFolder(output).read)
    return plan, {"logit_cosine": cosine.mean, "least_logit_cosine": cosine.least, "on": cosine.tokens, "folder": str(output)}
