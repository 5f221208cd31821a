"""What a report is made from: the launches of one campaign and what ``detect`` found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..measure.record import LaunchRecord

WORKLOAD_FIELDS = (
    "model_class",
    "size",
    "weights",
    "origin",
    "task",
    "batch_size",
    "sequence_length",
    "new_tokens",
    "precision",
    "mode",
)
TARGET_FIELDS = ("platform", "engine", "device", "browser")


@dataclass(frozen=True)
class ReportData:
    """``launches`` are flat dictionaries as ``flatten`` gives them, in the order in which they ran.

    ``campaign`` has ``campaign_id``, ``started_at`` and the ``request`` (seed and launches among its keys). ``platforms`` has one
    dictionary for each platform that was looked for: ``name``, ``available``, and ``reason`` and ``remedy`` where it is not.
    ``machine`` and ``environment`` are those of the campaign; each launch carries its own as well.
    """

    launches: tuple[Mapping[str, Any], ...] = ()
    campaign: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    platforms: tuple[Mapping[str, Any], ...] = ()


def flatten(record: LaunchRecord) -> dict[str, Any]:
    """A launch as one dictionary: the fields of its workload and target beside its own, ``coverage`` with its ``share``."""
    flat = asdict(record)
    spec = flat.pop("spec")
    flat.update(spec["workload"], **spec["target"])
    flat.update(spec_hash=record.spec.hash, workload_hash=record.spec.workload.hash, target_hash=record.spec.target.hash)
    if record.coverage:
        flat["coverage"]["share"] = record.coverage.share
    return flat


def plain(value: Any) -> Any:
    """The value as JSON can hold it. Not-a-number and infinity become None, so that a reader sees "not there", never a figure."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
