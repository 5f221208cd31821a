"""Precision against quality: how many bits a weight takes, and what that costs in perplexity and in the output."""

from __future__ import annotations

import math
from typing import Any

from ... import figures
from .. import tables
from ..filters import Filters
from ..snapshot import Row, Snapshot
from .base import Found, View, with_fields

# The latest of each format of a model on a text, with the float weights of the same run.
_QUALITY = """
    SELECT quality.*, reference.nats AS reference_nats
    FROM quality
    LEFT JOIN (FROM quality WHERE is_reference) AS reference USING (session_id)
    QUALIFY row_number() OVER (
        PARTITION BY quality.model, quality.origin, quality.windows_sha256, quality.tokens, quality.machine_hash, quality.format,
            quality.made_by, quality.provenance
        ORDER BY quality.measured_at DESC
    ) = 1
    ORDER BY quality.model, quality.origin, quality.tokens, quality.is_reference DESC, coalesce(quality.bits_per_cached_value, 0),
        quality.bits_per_weight, quality.format
"""
PAIRED = (
    "Ratios are to the float weights on the same windows, with a 95 % interval (Student's t over the windows' differences). "
    "Perplexities on other texts or of other tokenizers do not compare."
)


def _quality(snapshot: Snapshot, _: Filters) -> Found:
    """Perplexity of each format. The interval is paired by window (``quantize.quality.paired_ratio``); one window has none."""
    named = tables.machines(snapshot)
    return Found([_of_format(row, named) for row in snapshot.rows(_QUALITY)], PAIRED)


def _of_format(row: Row, named: dict[str, str]) -> Row:
    import numpy as np

    from ....quantize.quality import Quality, paired_ratio

    found = Quality(np.array(row["nats"]), row["tokens"])
    ratios: dict[str, Any] = dict.fromkeys(("perplexity_ratio", "perplexity_ratio_low", "perplexity_ratio_high"))
    if row["reference_nats"] is not None:
        bounds = paired_ratio(found, Quality(np.array(row["reference_nats"]), row["tokens"]))
        ratios = dict(zip(ratios, [value if math.isfinite(value) and value > 0 else None for value in bounds], strict=True))
        if None in ratios.values():  # a single window: no interval
            ratios["perplexity_ratio_low"] = ratios["perplexity_ratio_high"] = None
    if row["is_reference"]:
        ratios["perplexity_ratio_low"] = ratios["perplexity_ratio_high"] = None
    mean = float(found.nats.mean())
    return {
        "cell": None,
        "where": row["model"],
        "model": row["model"],
        "kind": row["provenance"],
        "provenance": row["provenance"],
        "model_class": row["model"],
        "machine": named.get(row["machine_hash"], "unknown"),
        "precision": row["format"],
        "made_by": row["made_by"],
        "engine": row["made_by"],
        "solver": row["solver"],
        "bits_per_weight": row["bits_per_weight"],
        "bits_per_cached_value": row["bits_per_cached_value"],
        "perplexity": math.exp(mean) if mean < math.log(1e300) else None,
        **ratios,
        "windows": len(row["nats"]),
        "tokens": row["tokens"],
        "origin": row["origin"],
        "measured_at": row["measured_at"],
        "is_reference": row["is_reference"],
    }


_SAME = ("machine_hash", "model_class", "size", "weights", "origin", "task", "sequence_length", "new_tokens", "mode")


def _agreement(snapshot: Snapshot, _: Filters) -> Found:
    """Bits per weight are bytes of weights as loaded, against the float32 weights of the same model, wherever both were measured."""
    full: dict[tuple[object, ...], float] = {}
    for row in tables.cells(snapshot):
        if row["precision"] == "float32" and row["weights_mb"]:
            full.setdefault(_model(row), row["weights_mb"])
    rows = []
    for row in tables.cells(snapshot):
        if row["cosine"] is None or row["kind"] not in ("measured", "inaccurate"):
            continue
        whole = full.get(_model(row))
        bits = 32 * row["weights_mb"] / whole if whole and row["weights_mb"] else None
        kept = ("cosine", "relative_error", "top1_agreement", "weights_mb", "median_ms")
        rows.append(with_fields(row, kept, bits_per_weight=bits))
    return Found(rows, "Agreement is the output against float32 on the CPU, same inputs.")


def _model(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in _SAME)


VIEWS = (
    View(
        "quality",
        "Precision against quality",
        "What do fewer bits per weight cost in perplexity on held-out text? Ours and its peers, with what is sure about the difference.",
        (
            "model",
            "precision",
            "made_by",
            "solver",
            "bits_per_weight",
            "bits_per_cached_value",
            "perplexity",
            "perplexity_ratio",
            "perplexity_ratio_low",
            "perplexity_ratio_high",
            "windows",
            "tokens",
            "is_reference",
            "machine",
            "origin",
            "measured_at",
        ),
        _quality,
        figures.quality,
        (
            "No format's perplexity is in this store.",
            "ipfs-accelerate quantize ./my-model --bits 4 --output ./my-model-4-bit --evaluate held-out.txt "
            "--store results/ipfs-accelerate.duckdb",
        ),
    ),
    View(
        "agreement",
        "Precision against agreement",
        "How near does the output stay to float32's with fewer bits? Bits are counted from the bytes of the weights, scales included.",
        (
            "model",
            "target",
            "kind",
            "flags",
            "precision",
            "bits_per_weight",
            "cosine",
            "relative_error",
            "top1_agreement",
            "weights_mb",
            "median_ms",
        ),
        _agreement,
        figures.agreement,
        (
            "No launch's output was checked against the float32 reference.",
            "ipfs-accelerate bench --models bert --platforms cpu --precisions float32,int8,int4",
        ),
    ),
)
