"""The recommendation explorer: a model and what is asked of it -> every candidate, with reasons and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError, nearest
from ...recommend.select import select_optimal_hardware
from ..figures import pareto
from .snapshot import Row

# Name in the address -> how its text becomes an argument.
ARGUMENTS: dict[str, type] = {
    "model": str,
    "mode": str,
    "objective": str,
    "precision": str,
    "batch_size": int,
    "sequence_length": int,
    "max_memory_gb": float,
    "latency_slo_ms": float,
}
COLUMNS = {
    "target": ("Where", ""),
    "precision": ("Precision", ""),
    "latency_ms": ("Latency", "ms"),
    "latency_low_ms": ("Low", "ms"),
    "latency_high_ms": ("High", "ms"),
    "throughput_per_s": ("Throughput", "items/s"),
    "memory_gb": ("Memory, predicted", "GB"),
    "pareto": ("Nothing is better in all", ""),
    "provenance": ("Provenance", ""),
    "source": ("Known by", ""),
    "feasible": ("Feasible", ""),
    "reason": ("Why not", ""),
}


def recommend(store: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Candidates in the order of the recommendation, its reasons, and the runs that would decide. UserError for what cannot be asked."""
    asked: dict[str, Any] = {}
    for name, text in parameters.items():
        if name not in ARGUMENTS:
            raise nearest(name, ARGUMENTS, "parameter")
        if text:
            asked[name] = _value(name, text)
    model = asked.pop("model", "")
    if not model:
        raise UserError("Name a model: a class such as bert, or a published name such as llama-7b.")
    # A page must not make the server read files: whoever reaches the port would learn what is there.
    if model.startswith((".", "/", "~")) or "\\" in model or model.endswith((".json", ".onnx")):
        raise UserError(f"This page takes names of models; of a file or folder, ask 'ipfs-accelerate recommend {model}'.")
    told = select_optimal_hardware(model, store=store, **asked).to_dict()
    rows = [_row(key, score) for key, score in enumerate(told["all_scores"])]
    drawn = [row for row in rows if row["latency_ms"] is not None and row["memory_gb"] is not None]
    figure = pareto(drawn).to_plotly_json() if drawn else None
    return {
        "name": "recommend",
        "title": f"Where to run {told['model']}",
        "columns": [{"key": key, "label": label, "unit": unit} for key, (label, unit) in COLUMNS.items()],
        "rows": rows,
        "figure": {"data": figure["data"], "layout": figure["layout"]} if figure else None,
        "explanation": told["explanation"],
        "measure_next": told["measure_next"],
        "prediction_source": told["prediction_source"],
    }


def _value(name: str, text: str) -> Any:
    try:
        value = ARGUMENTS[name](text)
    except ValueError as error:
        raise UserError(f"{name} takes {'a whole number' if ARGUMENTS[name] is int else 'a number'}, not '{text}'.") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} takes a number, not '{text}'.")
    return value


def _row(key: int, score: Mapping[str, Any]) -> Row:
    latency, memory, throughput = score["latency_ms"] or {}, score["memory_bytes"] or {}, score["throughput_per_s"] or {}
    place = score["browser"] or score["engine"]
    parts = [
        score["platform"],
        place if place != score["platform"] else "",
        "" if score["device"] == "default" else score["device"],
    ]
    return {
        "key": key,
        "target": " · ".join(filter(None, parts)),
        "precision": score["precision"],
        "latency_ms": latency.get("value"),
        "latency_low_ms": latency.get("low"),
        "latency_high_ms": latency.get("high"),
        "throughput_per_s": throughput.get("value"),
        "memory_gb": memory["value"] / 1e9 if memory else None,
        "pareto": score["pareto"],
        "provenance": score["provenance"],
        "kind": score["provenance"],
        "source": score["source"],
        "feasible": score["feasible"],
        "reason": score["reason"],
    }
