"""What the recommendation answers: the choice, every candidate with its figures or the reason against it, and what to measure next."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..predict.prediction import Interval
from .layout import Layout
from .places import Place
from .training_memory import TrainingMemory


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a model and where it would run, for its own time."""

    name: str
    place: Place
    latency_ms: Interval

    @property
    def label(self) -> str:
        return f"{self.name} on {self.place.label}"

    def to_dict(self) -> dict[str, Any]:
        return {"part": self.name, "label": self.place.label, "latency_ms": asdict(self.latency_ms)} | place_dict(self.place)


def place_dict(place: Place) -> dict[str, Any]:
    """What JSON says of a place."""
    names = ("platform", "engine", "device", "browser", "machine", "description", "known")
    return {name: getattr(place, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One candidate: a place at a precision, and for training the best layout on it. Times are of one inference or step, in milliseconds;
    throughput is items a second. ``reason`` says why it is not feasible. ``source`` is a regime of the prediction, ``provenance`` measured
    or predicted. A figure that is not known is None with its reason in ``unknown``."""

    place: Place
    precision: str
    feasible: bool
    reason: str = ""
    latency_ms: Interval | None = None
    throughput_per_s: Interval | None = None
    memory_bytes: Interval | None = None
    memory_provenance: str = "predicted"  # also where the time was measured: peaks are not taken from a store
    energy_j: Interval | None = None  # of an iteration
    energy_provenance: str | None = None
    cost_per_million: Interval | None = None
    memory_parts: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    provenance: str | None = None
    reasons: tuple[str, ...] = ()
    unknown: dict[str, str] = field(default_factory=dict)
    pareto: bool = False
    layout: Layout | None = None
    training_memory: TrainingMemory | None = None
    parts: tuple[
        Part, ...
    ] = ()  # in the order in which they run, where they run in different places; ``place`` is that of the last
    shortfall: tuple[str, float] | None = None  # which limit is missed, and the value that would do

    @property
    def label(self) -> str:
        where = " and ".join(part.label for part in self.parts) or self.place.label
        parts = [where, self.precision, self.layout.label if self.layout else ""]
        return ", ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        value = {
            key: each
            for key, each in asdict(self).items()
            if key not in ("place", "layout", "training_memory", "shortfall", "parts")
        } | place_dict(self.place)
        value["parts"] = [part.to_dict() for part in self.parts]
        value["layout"] = self.layout.to_dict() if self.layout else None
        value["memory_per_gpu"] = self.training_memory.to_dict() if self.training_memory else None
        return value


@dataclass(frozen=True, kw_only=True)
class HardwareSelection:
    """Prints as a short table with reasons. ``all_scores`` has the feasible candidates in order, then the others; ``parameter_count`` is
    exact. The fields of training are None for inference."""

    model: str
    model_family: str
    parameter_count: int
    mode: str
    objective: str
    primary_recommendation: Score
    fallback_options: tuple[Score, ...]
    all_scores: tuple[Score, ...]
    explanation: tuple[str, ...]
    prediction_source: str
    measure_next: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # measured cells that were not believed: how many, and why
    configuration: str | None = None
    configuration_kind: str | None = None

    @property
    def compatible_hardware(self) -> list[str]:
        """Labels of what could run it."""
        return list(dict.fromkeys(score.place.label for score in self.all_scores if score.feasible))

    @property
    def pareto(self) -> list[Score]:
        return [score for score in self.all_scores if score.pareto]

    @property
    def _layout(self) -> Layout | None:
        return self.primary_recommendation.layout

    @property
    def distributed_strategy(self) -> str | None:
        return self._layout.strategy if self._layout else None

    @property
    def degrees(self) -> dict[str, int] | None:
        return {name: getattr(self._layout, name) for name in ("data", "tensor", "pipeline")} if self._layout else None

    @property
    def per_gpu_batch_size(self) -> int | None:
        return self._layout.micro_batch if self._layout else None

    @property
    def gradient_accumulation_steps(self) -> int | None:
        return self._layout.accumulation if self._layout else None

    @property
    def mixed_precision(self) -> str | None:
        """bf16, fp16 or no, as trainers name it."""
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[self._layout.precision] if self._layout else None

    @property
    def activation_checkpointing(self) -> bool | None:
        return self._layout.checkpointing if self._layout else None

    @property
    def cpu_offload(self) -> bool | None:
        return self._layout.offload if self._layout else None

    @property
    def memory_per_gpu(self) -> dict[str, Any] | None:
        memory = self.primary_recommendation.training_memory
        return memory.to_dict() if memory else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        names = (
            *("model", "model_family", "parameter_count", "mode", "objective", "prediction_source", "left_out"),
            *("compatible_hardware", "explanation", "measure_next", "distributed_strategy", "degrees", "per_gpu_batch_size"),
            *("gradient_accumulation_steps", "mixed_precision", "activation_checkpointing", "cpu_offload", "memory_per_gpu"),
        )
        value = {name: getattr(self, name) for name in names}
        value["primary_recommendation"] = self.primary_recommendation.to_dict()
        value["fallback_options"] = [score.to_dict() for score in self.fallback_options]
        value["all_scores"] = [score.to_dict() for score in self.all_scores]
        value["configuration"] = self.configuration
        value["configuration_kind"] = self.configuration_kind
        return value

    def __str__(self) -> str:
        from .printing import table

        return table(self)
