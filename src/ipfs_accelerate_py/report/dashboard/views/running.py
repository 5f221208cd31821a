"""Campaigns: what ran, what is running now and how far it is."""

from __future__ import annotations

from ... import figures
from .. import tables
from ..filters import Filters
from ..snapshot import Snapshot
from .base import Found, View


def _progress(snapshot: Snapshot, _: Filters) -> Found:
    rows = []
    for row in tables.campaigns(snapshot):
        ended = row["launches_ok"] + row["launches_failed"] + row["launches_unsupported"]
        rows.append(
            {
                "campaign": row["campaign_id"],
                "status": row["status"],
                "provenance": row["provenance"] or "",
                "created_at": row["created_at"],
                "planned": row["launches_planned"],
                "done": row["launches_ok"],
                "failed": row["launches_failed"],
                "unsupported": row["launches_unsupported"],
                "remaining": max(row["launches_planned"] - ended, 0) if row["launches_planned"] is not None else None,
                "command": row["command"],
            }
        )
    told = "Unfinished is a campaign that runs now or was interrupted; the line at the top of the page says which."
    return Found(rows, told if any(row["status"] == "unfinished" for row in rows) else "")


VIEWS = (
    View(
        "progress",
        "Campaigns and progress",
        "What is running, and what ran? New launches appear here by themselves.",
        ("campaign", "status", "provenance", "created_at", "planned", "done", "failed", "unsupported", "remaining", "command"),
        _progress,
        figures.progress,
        ("No campaign has begun.", "ipfs-accelerate bench --quick"),
    ),
)
