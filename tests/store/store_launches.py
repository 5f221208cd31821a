"""Launches to put into a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ipfs_accelerate_py.measure.record import Accuracy, LaunchRecord
from ipfs_accelerate_py.spec import Spec, Target, Workload

SPEC = Spec(
    workload=Workload(model_class="bert", size="tiny", weights="synthetic", origin="synthetic:0", task="embedding"),
    target=Target(platform="cpu", engine="onnxruntime"),
)
PASSED = Accuracy(cosine=1.0, relative_error=1e-6, top1_agreement=None, passed=True, rule="cosine >= 0.99")


def make_launch(campaign_id: str, index: int = 0, spec: Spec = SPEC, **changes: Any) -> LaunchRecord:
    """A launch that ended well, with samples that tell launches apart."""
    values: dict[str, Any] = {
        "status": "ok",
        "duration_s": 1.5,
        "phases_ns": {"load": 2_000_000, "first_inference": 3_000_000},
        "samples_ns": (1_000_000 + index, 2_000_000, 3_000_000),
        "accuracy": PASSED,
        "machine": {"cpu": "one"},
        "environment": {"python": "3.11"},
    }
    return replace(LaunchRecord.begin(campaign_id, spec, index, index), **values | changes)
