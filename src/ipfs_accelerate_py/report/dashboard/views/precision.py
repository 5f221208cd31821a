"""Precision against quality: how many bits a weight takes, and what that costs in the output."""

from __future__ import annotations

from ... import figures
from .. import tables
from ..filters import Filters
from ..snapshot import Row, Snapshot
from .base import Found, View, with_fields

_SAME = ("machine_hash", "model_class", "size", "weights", "origin", "task", "sequence_length", "new_tokens", "mode")


def _quality(snapshot: Snapshot, _: Filters) -> Found:
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
    return Found(
        rows, "Quality is the output against float32 on the CPU, same inputs. Perplexity needs trained weights and a text."
    )


def _model(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in _SAME)


VIEWS = (
    View(
        "quality",
        "Precision against quality",
        "What do fewer bits per weight cost in the output? Bits are counted from the bytes of the weights, scales included.",
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
        _quality,
        figures.quality,
        (
            "No launch's output was checked against the float32 reference.",
            "ipfs-accelerate bench --models bert --platforms cpu --precisions float32,int8,int4",
        ),
    ),
)
