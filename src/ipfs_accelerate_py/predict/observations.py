"""What stores have to teach: measured times of known models on devices, each with its operator counts; absurd rows left out and counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..graph import ModelCounts, ModelDescription, count, describe
from .ceilings import Ceilings, from_probe
from .fitting import terms

LONGEST_MS = 3_600_000.0  # a median of over an hour is no iteration
ON_GPU = ("cuda", "rocm", "mps", "webgpu")
DISTURBED = 1.5  # times as fast as the ceilings allow, by the median of a device's cells


@dataclass(frozen=True, kw_only=True)
class DeviceKey:
    """A device as an engine sees it, on a machine. Another number of threads, or another browser, is another device."""

    machine: str
    platform: str
    engine: str
    device: str
    browser: str | None

    @property
    def text(self) -> str:
        return "|".join((self.machine, self.platform, self.engine, self.device, self.browser or ""))

    @classmethod
    def of(cls, text: str) -> DeviceKey:
        machine, platform, engine, device, browser = text.split("|")
        return cls(machine=machine, platform=platform, engine=engine, device=device, browser=browser or None)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measured cell. ``ms`` has ``total``, and for models that generate ``first`` (to the first token) and ``token`` (each further)."""

    key: DeviceKey
    description: ModelDescription
    counts: ModelCounts
    batch_size: int
    sequence_length: int | None
    new_tokens: int | None
    precision: str
    mode: str
    ms: dict[str, float]
    low_ms: float
    high_ms: float
    launches: int
    peak_bytes: float | None
    software_adapter: bool
    energy_j: tuple[float, ...] = ()  # of an iteration, one a launch where the device has a counter

    @property
    def model(self) -> str:
        return f"{self.description.model_class} {self.description.size}"


@dataclass
class Evidence:
    """All that was read: cells, machines' facts, probes, and how many cells were left out, by reason."""

    observations: list[Observation]
    machines: dict[str, dict[str, Any]]
    probes: dict[str, Ceilings]  # by DeviceKey.text
    left_out: Counter[str]

    @property
    def warnings(self) -> list[str]:
        return [
            f"{number} measured cells or probes were left out: {reason}." for reason, number in sorted(self.left_out.items())
        ]


def read(stores: Sequence[Path], exports: Iterable[Path] = ()) -> Evidence:
    """From stores, and from what ``export`` wrote. UserError as the store's own functions raise it."""
    import tempfile

    from ..store.exchange import import_

    evidence = Evidence([], {}, {}, Counter())
    for store in stores:
        _add(evidence, store)
    with tempfile.TemporaryDirectory() as folder:
        exports = list(exports)
        if exports:
            gathered = Path(folder) / "gathered.duckdb"
            for export in exports:
                import_(gathered, export)
            _add(evidence, gathered)
    drop_disturbed(evidence)
    return evidence


def drop_disturbed(evidence: Evidence) -> None:
    """Leave out probes that launches on the same device contradict: nothing is much faster than its ceilings, so such a probe ran beside
    other work. They are counted."""
    import statistics

    faster: dict[str, list[float]] = {}
    for each in evidence.observations:
        if (ceilings := evidence.probes.get(each.key.text)) is not None:
            least = terms(each.counts, ceilings, each.key.engine, each.precision)["total"]
            faster.setdefault(each.key.text, []).append(least.roofline_s / (each.ms["total"] / 1000))
    for key, ratios in faster.items():
        if statistics.median(ratios) > DISTURBED:
            del evidence.probes[key]
            evidence.left_out["a probe found less than launches reached on that device: it ran beside other work"] += 1


def _joules(store: Path) -> dict[tuple[str, str], list[float]]:
    """Joules of an iteration of each launch, by spec and machine: of the launches that the same counters saw, most of them."""
    from ..measure.energy import per_iteration
    from ..store.observed import energies

    found: dict[tuple[str, str], dict[tuple[str, ...], list[float]]] = {}
    for spec, machine, platform, device, software, facts in energies(store):
        on_gpu = platform in ON_GPU and not software
        # The only counter of a GPU is NVIDIA's, and it says nothing about another GPU beside it.
        if on_gpu and platform != "cuda" and not (platform == "webgpu" and "nvidia" in device.lower()):
            continue
        if (each := per_iteration(facts, on_gpu)) is not None:
            counters = tuple(sorted(facts["joules"])) if on_gpu else ()
            found.setdefault((spec, machine), {}).setdefault(counters, []).append(each)
    return {key: max(by_counters.values(), key=len) for key, by_counters in found.items()}


def _add(evidence: Evidence, store: Path) -> None:
    from ..store import queries
    from ..store.observed import probes

    joules = _joules(store)
    for row in queries.spec_summaries(store):
        if row["launches_ok"]:
            found = _observation(row, joules.get((row["spec_hash"], row["machine_hash"]), []))
            if isinstance(found, str):
                evidence.left_out[found] += 1
            else:
                evidence.observations.append(found)
    _, machines = queries.run_sql(store, "SELECT machine_hash, facts FROM machine")
    evidence.machines |= {name: json.loads(facts) for name, facts in machines}
    for key, rows in probes(store).items():
        if (ceilings := from_probe(rows, key)) is not None:
            evidence.probes[key] = ceilings
        else:
            evidence.left_out["a probe has no usable rates"] += 1


def _observation(row: dict[str, Any], energy_j: Sequence[float]) -> Observation | str:
    """The cell of a summary's row, or why it teaches nothing."""
    if row["provenance"] != "measured":
        return f"they are {row['provenance']}"
    if not row["accuracy_passed"]:
        return "their output check failed"
    ms = {"total": row["median_ms"], "first": row["time_to_first_token_ms"], "token": row["time_per_output_token_ms"]}
    ms = {name: value for name, value in ms.items() if value is not None}
    if not all(math.isfinite(value) and 0 < value < LONGEST_MS for value in ms.values()) or "total" not in ms:
        return "their times are not numbers above 0 and below an hour"
    if row["size"] == "custom":
        return "their models' shapes are not in the store"
    try:
        description = describe(row["model_class"], row["size"])
        counts = count(
            description,
            batch_size=row["batch_size"],
            sequence_length=row["sequence_length"],
            new_tokens=row["new_tokens"],
            precision=row["precision"],
            mode=row["mode"],
        )
    except UserError as error:
        return f"their models are not known ({error})"
    on_device = row["platform"] in ON_GPU
    peak = row["device_peak_mb"] if on_device else row["host_peak_mb"]
    return Observation(
        key=DeviceKey(
            machine=row["machine_hash"],
            platform=row["platform"],
            engine=row["engine"],
            device=row["device"],
            browser=row["browser"] or None,
        ),
        description=description,
        counts=counts,
        batch_size=row["batch_size"],
        sequence_length=row["sequence_length"],
        new_tokens=row["new_tokens"],
        precision=row["precision"],
        mode=row["mode"],
        ms=ms,
        low_ms=row["min_median_ms"],
        high_ms=row["max_median_ms"],
        launches=row["launches_ok"],
        peak_bytes=peak * 1e6 if peak is not None and math.isfinite(peak) and peak > 0 else None,
        software_adapter=bool(row["software_adapter"]),
        energy_j=tuple(each for each in energy_j if math.isfinite(each) and each > 0),
    )
