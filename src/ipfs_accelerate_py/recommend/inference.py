"""Scores of places for inference: what rules a place out, and what the predictor says of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from ..errors import UnavailableError, UserError
from ..graph import ModelCounts, ModelDescription, count
from ..graph.counting import lengths, within_limit
from ..platforms.registry import platforms
from ..predict.memory import largest_weight_bytes
from ..predict.prediction import Prediction
from ..spec import Workload
from . import memory
from .places import Place
from .prices import HOW, Price, find, per_million
from .request import Request
from .selection import Score

FULL_PRECISIONS = ("float32", "float16", "bfloat16")
ROUNDED_PRECISIONS = ("int8", "int4")


class Predicts(Protocol):
    def predict(self, description: ModelDescription, **where: Any) -> Prediction: ...


def scores(
    description: ModelDescription,
    request: Request,
    places: Sequence[Place],
    precisions: Sequence[str],
    predictor: Predicts,
    prices: Sequence[Price],
) -> list[Score]:
    """Every place at every precision. UserError for more tokens than the model takes."""
    within_limit(description, *lengths(description, request.sequence_length, request.new_tokens))
    return [score(description, request, place, precision, predictor, prices) for place in places for precision in precisions]


def score(
    description: ModelDescription,
    request: Request,
    place: Place,
    precision: str,
    predictor: Predicts,
    prices: Sequence[Price],
) -> Score:
    """One place at one precision. What is not feasible says why and is not predicted."""
    shape = {"batch_size": request.batch_size, "sequence_length": request.sequence_length, "new_tokens": request.new_tokens}
    counts = count(description, precision=precision, **shape)  # type: ignore[arg-type]
    needs = memory.inference_memory(counts, place.engine, "device" if place.separate_memory else "host")
    common: dict[str, Any] = {"place": place, "precision": precision, "memory_parts": needs.to_dict()}
    if reason := place.lacking or unsupported(description, request, place, precision) or _operators(counts):
        return Score(**common, feasible=False, reason=reason)
    if place.memory_bytes is not None and needs.total > place.memory_bytes:
        reason = f"It needs {needs.total / 1e9:,.1f} GB and has {place.memory_bytes / 1e9:,.1f} GB."
        return Score(**common, feasible=False, reason=reason, shortfall=("max_memory_gb", needs.total / 1e9))
    if reason := _browser_limits(counts, place):
        return Score(**common, feasible=False, reason=reason)
    try:
        found = predictor.predict(
            description,
            platform=place.platform,
            engine=place.engine,
            device=place.device,
            browser=place.browser,
            machine=place.machine,
            software_adapter=place.software_adapter,
            precision=precision,
            mode="inference",
            **shape,
        )
    except (UnavailableError, UserError) as error:
        unknown = {
            "latency": str(error),
            "throughput": str(error),
            "energy": str(error),
            "cost": "Its throughput is not known.",
        }
        return Score(**common, feasible=True, unknown=unknown)
    unknown = {} if found.energy_j else {"energy": found.energy_reason}
    price = find(prices, place)
    if price is None:
        unknown["cost"] = f"There is no price of {place.platform}: {HOW}."
    return Score(
        **common,
        feasible=True,
        latency_ms=found.latency_ms,
        throughput_per_s=found.throughput_per_s,
        memory_bytes=found.memory_bytes,
        energy_j=found.energy_j,
        energy_provenance=found.energy_provenance,
        cost_per_million=per_million(price, found.throughput_per_s) if price else None,
        source=found.regime,
        provenance=found.provenance,
        reasons=(*found.reasons, *([price.said] if price else [])),
        unknown=unknown,
    )


def unsupported(description: ModelDescription, request: Request, place: Place, precision: str) -> str | None:
    """Why the platform cannot run this work at all, asked of the platform without loading its engine."""
    if description.graph is not None and place.engine == "torch":
        return "torch does not run ONNX files."
    work = Workload(
        model_class=description.model_class or "bert",  # a name for the question; only training asks more of it
        size=description.size or "custom",
        weights="synthetic",
        origin="synthetic:0",
        task="",
        batch_size=request.batch_size,
        precision=precision,
        mode=request.mode,
    )
    if place.platform == "openvino" and precision == "float16":
        return None if not place.here else _openvino_float16()
    return _platforms()[place.platform].unsupported(work, place.engine)


_platforms = cache(platforms)  # finding them reads the metadata of every installed package


def _openvino_float16() -> str | None:
    """OpenVINO's own answer needs OpenVINO; its CPU device computes float16 where the processor has AVX512-FP16 or Arm's."""
    from ..platforms.processor import processor_facts

    features = processor_facts()["features"] or []
    if {"avx512_fp16", "asimdhp"} & set(features):
        return None
    return "OpenVINO's CPU device computes in float16 only on processors with AVX512-FP16 or Arm's half precision."


def _operators(counts: ModelCounts) -> str | None:
    names = sorted({name for phase in counts.phases.values() for name in phase.unknown})
    return f"Its operators {', '.join(names[:5])} are not known, so nothing can be said of where they run." if names else None


def _browser_limits(counts: ModelCounts, place: Place) -> str | None:
    if place.engine != "onnxruntime-web":
        return None
    if place.platform in ("wasm", "webnn") and counts.weights_bytes > memory.WASM_BYTES:
        return f"WebAssembly addresses {memory.WASM_BYTES / 1e9:.1f} GB, and the weights alone are {counts.weights_bytes / 1e9:,.1f} GB."
    largest, limit = largest_weight_bytes(counts), BINDING_BYTES.get(place.browser or "", memory.LEAST_BINDING_BYTES)
    if place.platform == "webgpu" and largest > limit:
        return (
            f"Its largest weight, {largest / 1e6:,.0f} MB, is above the {limit / 1e6:,.0f} MB of a WebGPU storage buffer there."
        )
    return None


# maxStorageBufferBindingSize as browsers reported it with the reference measurements (facts of data/reference/nvidia-h200); others
# are held to the least that the standard allows.
BINDING_BYTES: Mapping[str, int] = {
    "chromium": 2_147_483_644,
    "chromium-headless-shell": 2_147_483_644,
    "chrome": 2_147_483_644,
    "edge": 2_147_483_644,
    "firefox": 1_073_741_824,
}
