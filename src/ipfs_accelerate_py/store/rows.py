"""A launch as one row of plain columns, and back. Needs pyarrow only, so that a launch's own process can spool its record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ..measure.record import PROVENANCES, STATUSES, Accuracy, LaunchRecord
from ..platforms.base import Coverage
from ..spec import Spec, Target, Workload, canonical_json, identity

_TEXT, _INT, _LIST, _COUNTS = pa.string(), pa.int64(), pa.list_(pa.int64()), pa.map_(pa.string(), pa.int64())
_ACCURACY = pa.struct(
    {
        "cosine": pa.float64(),
        "relative_error": pa.float64(),
        "top1_agreement": pa.float64(),
        "passed": pa.bool_(),
        "rule": _TEXT,
    }
)

# The columns of table ``launch``, then those from which the other tables get their rows. JSON is text here.
SPOOL_SCHEMA = pa.schema(
    {
        "launch_id": _TEXT,
        "campaign_id": _TEXT,
        "spec_hash": _TEXT,
        "machine_hash": _TEXT,
        "environment_hash": _TEXT,
        "launch_index": _INT,
        "order_index": _INT,
        "started_at": pa.timestamp("us"),
        "duration_s": pa.float64(),
        "provenance": _TEXT,
        "status": _TEXT,
        "error_class": _TEXT,
        "error_message": _TEXT,
        "error_phase": _TEXT,
        "phases_ns": _COUNTS,
        "warm_up_ns": _LIST,
        "samples_ns": _LIST,
        "first_token_ns": _LIST,
        "per_token_ns": _LIST,
        "steady": pa.bool_(),
        "stop_reason": _TEXT,
        "clock_resolution_ns": _INT,
        "host_peak_bytes": _INT,
        "device_peak_bytes": _INT,
        "weights_bytes": _INT,
        "coverage_provider": _TEXT,
        "coverage_nodes": _COUNTS,
        "software_adapter": pa.bool_(),
        "bytes_read_back": _INT,
        "facts": _TEXT,
        "noise": _TEXT,
        "accuracy": _ACCURACY,
        "workload_hash": _TEXT,
        "target_hash": _TEXT,
        "workload": _TEXT,
        "target": _TEXT,
        "machine": _TEXT,
        "environment": _TEXT,
    }
)
_LISTS = ("warm_up_ns", "samples_ns", "first_token_ns", "per_token_ns")
# Fields of the record that are columns as they are.
_SAME = (
    *("launch_id", "campaign_id", "launch_index", "order_index", "duration_s", "provenance", "status"),
    *("error_class", "error_message", "error_phase", "steady", "stop_reason", "clock_resolution_ns"),
    *("host_peak_bytes", "device_peak_bytes", "weights_bytes", "software_adapter", "bytes_read_back"),
)


def to_row(record: LaunchRecord) -> dict[str, Any]:
    """The record as a row of SPOOL_SCHEMA."""
    assert record.status in STATUSES, record.status
    assert record.provenance in PROVENANCES, record.provenance
    machine, environment = storable(record.machine), storable(record.environment)
    workload, target = record.spec.workload, record.spec.target
    row: dict[str, Any] = {name: getattr(record, name) for name in (*_SAME, *_LISTS)}
    row |= {
        "spec_hash": record.spec.hash,
        "machine_hash": identity(machine),
        "environment_hash": identity(environment),
        "started_at": datetime.fromisoformat(record.started_at).astimezone(UTC).replace(tzinfo=None),
        "phases_ns": list(record.phases_ns.items()),
        "coverage_provider": record.coverage and record.coverage.provider,
        "coverage_nodes": record.coverage and list(record.coverage.nodes.items()),
        "facts": canonical_json(storable(record.facts)),
        "noise": canonical_json(storable(record.noise)),
        "accuracy": record.accuracy and asdict(record.accuracy),
        "workload_hash": workload.hash,
        "target_hash": target.hash,
        "workload": canonical_json(asdict(workload)),
        "target": canonical_json(asdict(target)),
        "machine": canonical_json(machine),
        "environment": canonical_json(environment),
    }
    return {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}


def from_row(row: Mapping[str, Any]) -> LaunchRecord:
    """The record of a row as ``queries.records`` selects it: structs and maps are dictionaries, JSON is text."""
    started_at: datetime = row["started_at"].replace(tzinfo=UTC)
    accuracy, provider = _without_keys(row["accuracy"]), row["coverage_provider"]
    same: dict[str, Any] = {name: row[name] for name in _SAME}
    lists: dict[str, Any] = {name: tuple(row[name]) for name in _LISTS}
    return LaunchRecord(
        spec=Spec(workload=Workload(**_without_keys(row["workload"])), target=Target(**_without_keys(row["target"]))),
        started_at=started_at.isoformat(timespec="microseconds" if started_at.microsecond % 1000 else "milliseconds"),
        phases_ns=row["phases_ns"],
        coverage=None if provider is None else Coverage(provider, row["coverage_nodes"]),
        accuracy=None if accuracy["passed"] is None else Accuracy(**accuracy),
        facts=json.loads(row["facts"]),
        noise=json.loads(row["noise"]),
        machine=json.loads(row["machine"]),
        environment=json.loads(row["environment"]),
        **same,
        **lists,
    )


def storable(value: Any) -> Any:
    """The value as strict JSON and UTF-8 can hold it: numbers that are not finite become the texts "nan", "inf" and "-inf", and a
    lone surrogate in text a question mark. Everything else is kept verbatim."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def _without_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("workload_hash", "target_hash", "launch_id")}
