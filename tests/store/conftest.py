"""A store, and launches to put into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipfs_accelerate_py.measure.record import Accuracy, LaunchRecord
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.writer import Store

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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "s.duckdb")


@pytest.fixture
def begin() -> Callable[..., str]:
    """Begin a campaign on a store and return its id."""

    def begin_on(store: Store, request: str = "request", launches: int = 3) -> str:
        return store.begin_campaign({"launches": launches}, request_hash=request, command="bench", seed=0)

    return begin_on
