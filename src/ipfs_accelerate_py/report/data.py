"""What a report is made from: the launches of one campaign and what ``detect`` found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..measure.record import LaunchRecord
from ..store import queries


@dataclass(frozen=True)
class ReportData:
    """``launches`` are flat dictionaries as ``flatten`` gives them, in the order in which they ran.

    ``campaign`` has ``campaign_id`` and the ``request`` (a ``campaign.plan.Request`` as a dictionary). ``platforms`` has one
    dictionary for each platform that was asked for: ``name``, ``available``, and ``reason`` and ``remedy`` where it is not.
    ``machine`` is that of the latest launch; each launch carries its own machine and environment as well.
    """

    launches: tuple[Mapping[str, Any], ...] = ()
    campaign: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    platforms: tuple[Mapping[str, Any], ...] = ()


def from_store(path: Path, campaign: str | None = None) -> ReportData:
    """One campaign of the store, the latest by default, or ``all`` of them pooled. UserError where there is none.

    A platform that was not there at all leaves a row for each model in the store; here it is one line of ``platforms``.
    """
    row = queries.campaign(path, None if campaign == "all" else campaign)
    records = queries.records(path, None if campaign == "all" else row["campaign_id"])
    platforms = _platforms(row["plan"])
    gone = {platform["name"] for platform in platforms if not platform["available"]}
    launches = tuple(
        flatten(record) for record in records if record.error_phase != "plan" or record.spec.target.platform not in gone
    )
    return ReportData(
        launches=launches,
        campaign={"campaign_id": row["campaign_id"], "request": row["plan"].get("request", {})},
        machine=next((record.machine for record in reversed(records) if record.machine), {}),
        platforms=platforms,
    )


def _platforms(plan: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Platforms of a campaign's plan: not available is one on which no cell could be planned."""
    planned = dict.fromkeys(spec["target"]["platform"] for spec in plan.get("specs", []))
    gone: dict[str, dict[str, Any]] = {}
    for cell in plan.get("impossible", []):
        name = cell["spec"]["target"]["platform"]
        if name not in planned:
            gone.setdefault(name, {"name": name, "available": False, "reason": cell["reason"], "remedy": cell["remedy"]})
    return (*({"name": name, "available": True} for name in planned), *gone.values())


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
