"""One cell whole: what was asked, every launch with its samples, where it ran, what went wrong, and the command that repeats it."""

from __future__ import annotations

import json
from typing import Any

from ...errors import UserError
from ..figures import iterations
from ..wording import repeat_command, shape
from . import tables
from .snapshot import Row, Snapshot

_LAUNCHES = """
    SELECT launch.*, seen.median_ms, workload.* EXCLUDE (workload_hash), target.* EXCLUDE (target_hash),
        machine.facts::VARCHAR AS machine, environment.facts::VARCHAR AS environment,
        cosine, relative_error, top1_agreement, accuracy.passed AS accuracy_passed, rule AS accuracy_rule,
        (campaign.plan -> '$.request')::VARCHAR AS request
    FROM (SELECT launch_id, cell, median_ms FROM seen_launch) AS seen
    JOIN launch USING (launch_id)
    JOIN spec ON spec.spec_hash = launch.spec_hash
    JOIN workload USING (workload_hash)
    JOIN target USING (target_hash)
    JOIN machine ON machine.machine_hash = launch.machine_hash
    JOIN environment ON environment.environment_hash = launch.environment_hash
    JOIN campaign ON campaign.campaign_id = launch.campaign_id
    LEFT JOIN accuracy ON accuracy.launch_id = launch.launch_id
    WHERE seen.cell = ?
    ORDER BY launch.started_at, launch.launch_id
"""
_LAUNCH = (
    "launch_id", "launch_index", "campaign_id", "started_at", "duration_s", "provenance", "status", "error_class", "error_message",
    "error_phase", "median_ms", "phases_ns", "steady", "stop_reason", "clock_resolution_ns", "host_peak_bytes", "device_peak_bytes",
    "bytes_read_back", "coverage_provider", "coverage_nodes", "cosine", "relative_error", "top1_agreement", "accuracy_passed",
    "accuracy_rule", "facts", "noise", "samples_ns", "warm_up_ns",
)  # fmt: skip


def detail(snapshot: Snapshot, cell: str, *, samples: bool = True) -> dict[str, Any]:
    """The cell of that id. ``samples`` off leaves out the lists of iterations and their figure. UserError where there is none."""
    row = next((row for row in tables.cells(snapshot) if row["cell"] == cell), None)
    if row is None:
        raise UserError(f"This store has no cell '{cell}': the link is of another store, or of an earlier one.")
    launches = snapshot.rows(_LAUNCHES, [cell])
    for launch in launches:
        for name in ("facts", "noise", "machine", "environment", "request"):
            launch[name] = json.loads(launch[name]) if launch[name] else {}
    last = launches[-1]
    return {
        "cell": cell,
        "title": f"{row['model']} on {row['target']}",
        "shape": shape(last),
        "row": row,
        "command": repeat_command(last, last["request"] or {}, len(launches)),
        "launches": [_launch(launch, samples) for launch in launches],
        "machines": _distinct(launches, "machine"),
        "environments": _distinct(launches, "environment"),
        "figure": _figure(launches) if samples and any(launch["samples_ns"] for launch in launches) else None,
    }


def _launch(launch: Row, samples: bool) -> Row:
    kept = {name: launch[name] for name in _LAUNCH}
    kept["n_samples"] = len(launch["samples_ns"])
    if not samples:
        kept["samples_ns"] = kept["warm_up_ns"] = None
    return kept


def _figure(launches: list[Row]) -> dict[str, Any]:
    made = iterations(launches).to_plotly_json()
    return {"data": made["data"], "layout": made["layout"]}


def _distinct(launches: list[Row], name: str) -> list[dict[str, Any]]:
    """Each different value once, with the launches that have it."""
    found: dict[str, dict[str, Any]] = {}
    for launch in launches:
        key = json.dumps(launch[name], sort_keys=True)
        found.setdefault(key, {"launches": [], "facts": launch[name]})["launches"].append(launch["launch_index"])
    return list(found.values())
