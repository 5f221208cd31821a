"""What was measured, cell by cell: the matrix, latency of each launch, cold start, scaling, memory."""

from __future__ import annotations

from collections.abc import Callable

from ... import figures
from .. import tables
from ..filters import Filters
from ..launches import facet_counts, launches
from ..snapshot import Row, Snapshot
from .base import Found, View, with_fields
from .predicted import cells_predicted

BENCH = "ipfs-accelerate bench --quick"
NOTHING_YET = "This store has no launch yet."
PHASES = ("start_ms", "fetch_ms", "load_ms", "compile_ms", "first_inference_ms")


def _matrix(snapshot: Snapshot, _: Filters) -> Found:
    cells = tables.cells(snapshot)
    fastest: dict[str, float] = {}
    for row in cells:
        if row["kind"] == "measured" and row["median_ms"]:
            fastest[row["where"]] = min(row["median_ms"], fastest.get(row["where"], row["median_ms"]))
    for row in cells:
        best = fastest.get(row["where"]) if row["kind"] == "measured" else None
        row["times_fastest"] = row["median_ms"] / best if best and row["median_ms"] else None
    note = ""
    if any(row["interval"] == tables.RANGE for row in cells):
        note = f"Brackets are the range of launch medians: for more than {tables.INTERVALS_UP_TO} cells no intervals are computed here."
    return Found([*cells, *cells_predicted(snapshot)], note)


def _launches(snapshot: Snapshot, filters: Filters) -> Found:
    found, total = launches(snapshot, filters, None if filters.whole else LAUNCHES_UP_TO)
    if len(found) == total:
        return Found(found)
    told = (
        f"The first {len(found):,} of {total:,} launches: filter to see others. CSV, JSON and Parquet hold all that pass, and so does "
        "the REST address with limit=0."
    )
    return Found(found, told, partial=True, values=facet_counts(snapshot))


LAUNCHES_UP_TO = 2000  # what a page draws and sorts at once without being felt


def _with(wanted: Callable[[Row], bool], *names: str) -> Callable[[Snapshot, Filters], Found]:
    """Cells that have what a view shows."""
    return lambda snapshot, _: Found(
        [with_fields(row, names) for row in tables.cells(snapshot) if row["launches_ok"] and wanted(row)]
    )


def _cold(snapshot: Snapshot, _: Filters) -> Found:
    names = (*PHASES, "median_ms")
    rows = [with_fields(row, names) for row in tables.cells(snapshot) if any(row[name] is not None for name in PHASES)]
    return Found([{**row, "cold_ms": sum(row[name] or 0.0 for name in PHASES)} for row in rows])


def _scaling(snapshot: Snapshot, _: Filters) -> Found:
    """Cells that differ in nothing but their batch size, or nothing but their length; a series needs two of them."""
    same = (
        "machine_hash", "provenance", "model_class", "size", "weights", "origin", "task", "new_tokens", "precision", "mode", "target_hash",
    )  # fmt: skip
    rows = []
    for axis, varied, fixed in (
        ("batch size", "batch_size", "sequence_length"),
        ("sequence length", "sequence_length", "batch_size"),
    ):
        series: dict[tuple[object, ...], list[Row]] = {}
        for row in tables.cells(snapshot):
            if row["median_ms"] and row["kind"] in ("measured", "simulated") and row[varied]:
                series.setdefault(tuple(row[name] for name in (*same, fixed)), []).append(row)
        for members in series.values():
            if len(members) < 2:
                continue
            first = members[0]
            shape = (
                f"batch {first['batch_size']}"
                if varied == "sequence_length"
                else f"{first[fixed]} tokens"
                if first[fixed]
                else ""
            )
            name = " · ".join(
                filter(None, [f"{first['model_class']} {first['size']}", first["precision"], shape, first["target"]])
            )
            name += " · simulated" if first["provenance"] == "simulated" else ""
            name += f" · {first['machine']}" if "\n" in first["where"] else ""  # lines of two machines are two
            kept = ("median_ms", "low_ms", "high_ms", "throughput_per_s", "launches_ok", "batch_size", "sequence_length")
            rows += [
                with_fields(row, kept, axis=axis, x=row[varied], series=name, where=name)
                for row in sorted(members, key=lambda one: one[varied])
            ]
    return Found(rows)


VIEWS = (
    View(
        "matrix",
        "Every model on every platform",
        "Where does each model run, and how fast? The darker a tile, the nearer to the model's fastest; what was not measured says so.",
        ("model", "target", "machine", "kind", "flags", "median_ms", "low_ms", "high_ms", "times_fastest", "launches_ok", "launches",
         "samples", "error_class", "error_message", "interval"),
        _matrix,
        figures.platform_matrix,
        (NOTHING_YET, BENCH),
    ),
    View(
        "launches",
        "Latency of each launch",
        "How far do launches differ? Each row of marks is a cell: one mark per launch at its median, its whisker from the 5th to the 95th "
        "percentile of its iterations.",
        ("model", "target", "kind", "flags", "launch_index", "status", "median_ms", "p5_ms", "p25_ms", "p75_ms", "p95_ms", "n_samples",
         "started_at", "error_class", "error_message", "campaign"),
        _launches,
        figures.launch_distributions,
        (NOTHING_YET, BENCH),
    ),
    View(
        "cold",
        "Cold start by phase",
        "How long until the first answer, and where does the time go? Medians over launches.",
        ("model", "target", "kind", "flags", "cold_ms", *PHASES, "median_ms"),
        _cold,
        figures.cold_start,
        ("No launch that ended well has told its phases.", BENCH),
    ),
    View(
        "scaling",
        "Batch and length scaling",
        "What does a larger batch or a longer input cost? Lines join cells that differ in nothing else.",
        ("model", "target", "kind", "flags", "axis", "x", "median_ms", "low_ms", "high_ms", "throughput_per_s", "launches_ok"),
        _scaling,
        figures.scaling,
        (
            "No model was measured at two batch sizes or two lengths on one target.",
            "ipfs-accelerate bench --quick --models bert --batch-sizes 1,4,16 --sequence-lengths 32,128",
        ),
    ),
    View(
        "memory",
        "Memory",
        "How much memory does it take? Weights, and the peaks of host and device; a browser's host peak is an upper bound.",
        ("model", "target", "kind", "flags", "weights_mb", "host_peak_mb", "device_peak_mb"),
        _with(lambda row: any(row[name] for name in ("weights_mb", "host_peak_mb", "device_peak_mb")),
              "weights_mb", "host_peak_mb", "device_peak_mb"),
        figures.memory_use,
        ("No launch that ended well has told its memory.", BENCH),
    ),
)  # fmt: skip
