"""What a person asks of the recommendation, checked: every mistake is one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError, nearest
from ..spec import MODES, PRECISIONS

OBJECTIVES = ("latency", "throughput", "memory", "energy", "cost")
FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal")
TRAINING_PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Request:
    """``batch_size`` is of one inference; in training it is what each device contributes to a step, so a step has batch_size x gpu_count
    items. ``max_memory_gb`` is a limit for each device, in 10^9 bytes. ``latency_slo_ms`` is a limit for one inference or step."""

    model: str
    family: str | None = None
    batch_size: int = 1
    sequence_length: int | None = None
    new_tokens: int | None = None
    mode: str = "inference"
    precision: str | None = None
    task: str | None = None
    distributed: bool = False
    gpu_count: int = 1
    max_memory_gb: float | None = None
    available_hardware: Sequence[str] | None = None
    objective: str = "latency"
    latency_slo_ms: float | None = None

    def checked(self) -> Request:
        """This request, or a UserError that names the first mistake."""
        for what, asked, known in (
            ("mode", self.mode, MODES),
            ("objective", self.objective, OBJECTIVES),
            ("precision", self.precision, PRECISIONS),
            ("model family", self.family, FAMILIES),
        ):
            if asked is not None and asked not in known:
                raise nearest(str(asked), known, what)
        for name, value in (("batch_size", self.batch_size), ("gpu_count", self.gpu_count)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {value}.")
        for name, limit in (("max_memory_gb", self.max_memory_gb), ("latency_slo_ms", self.latency_slo_ms)):
            if limit is not None and not (isinstance(limit, int | float) and math.isfinite(limit) and limit > 0):
                raise UserError(f"{name} must be more than 0, not {limit}.")
        if self.mode == "inference" and (self.distributed or self.gpu_count > 1):
            raise UserError("Only training is spread over several devices here: ask for mode='training', or for gpu_count=1.")
        if self.mode == "training" and self.precision not in (None, *TRAINING_PRECISIONS):
            raise UserError(
                f"Training runs in {', '.join(TRAINING_PRECISIONS)}, not in {self.precision}, which is for inference."
            )
        if self.distributed and self.gpu_count < 2:
            raise UserError("Distributed training needs gpu_count of 2 or more: say how many GPUs there are.")
        if isinstance(self.available_hardware, str):
            raise UserError(f"available_hardware is a list: ['{self.available_hardware}'].")
        if self.available_hardware is not None and not self.available_hardware:
            raise UserError("available_hardware is empty: leave it out for this machine's own, or name a platform or device.")
        return self
