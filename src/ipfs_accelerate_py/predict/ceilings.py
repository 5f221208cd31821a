"""What a device can do at most: rates of matrix products and of memory, and what starting work and reading results costs.

From a probe that ran on the device (``calibrate``), or from its maker's datasheet.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Curve = tuple[tuple[float, float], ...]  # (size, rate) in rising order of size


def at(curve: Curve, size: float) -> float:
    """The rate at a size: linear in logarithms between the points, constant beyond them."""
    index = bisect_left(curve, (size,))
    if index == 0:
        return curve[0][1]
    if index == len(curve):
        return curve[-1][1]
    (x0, y0), (x1, y1) = curve[index - 1], curve[index]
    share = math.log(max(size, 1) / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + share * (math.log(y1) - math.log(y0)))


@dataclass(frozen=True)
class Ceilings:
    """``matmul``: by precision, FLOP/s at the FLOPs of one product. ``bandwidth``: bytes/s read and written at the bytes of one operator.
    ``dispatch_s``: one small operator more. ``execution_s``: a run of a graph with nothing in it, its result read back.

    A precision that is missing runs at the rate of float32. ``source`` is ``probe`` or ``datasheet``; a datasheet has neither cost.
    """

    source: str
    name: str
    matmul: Mapping[str, Curve]
    bandwidth: Curve
    dispatch_s: float | None = None
    execution_s: float | None = None
    # bytes/s, from the host's memory; None where it was not measured, or the device works in it
    copy_to_device: float | None = None
    copy_from_device: float | None = None
    memory_bytes: int | None = None
    software_adapter: bool = False  # a GPU's work done by a processor, as the browser said
    facts: Mapping[str, Any] = field(default_factory=dict)

    def flops_per_s(self, precision: str, flops: float) -> float:
        return at(self.matmul.get(precision) or self.matmul["float32"], flops)

    def bytes_per_s(self, size: float) -> float:
        return at(self.bandwidth, size)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "name": self.name,
            "matmul": {name: [list(point) for point in curve] for name, curve in self.matmul.items()},
            "bandwidth": [list(point) for point in self.bandwidth],
            "dispatch_s": self.dispatch_s,
            "execution_s": self.execution_s,
            "copy_to_device": self.copy_to_device,
            "copy_from_device": self.copy_from_device,
            "memory_bytes": self.memory_bytes,
            "software_adapter": self.software_adapter,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Ceilings:
        curves = {name: _curve(points) for name, points in raw["matmul"].items()}
        return cls(**{**raw, "matmul": curves, "bandwidth": _curve(raw["bandwidth"])})


def _curve(points: Sequence[Sequence[float]]) -> Curve:
    return tuple(sorted((float(size), float(rate)) for size, rate in points))


def from_probe(rows: Sequence[Mapping[str, Any]], name: str) -> Ceilings | None:
    """From the rows of one device's latest probe; None where it lacks products or bandwidth. Rates that are not finite and above 0 are
    left out."""
    good = [row for row in rows if math.isfinite(row["value"]) and row["value"] > 0]
    matmul: dict[str, dict[float, float]] = {}
    bandwidth: dict[float, float] = {}
    single: dict[str, float] = {}
    for row in good:
        if row["kind"] == "matmul":
            best = matmul.setdefault(row["precision"], {})
            best[row["size"]] = max(row["value"], best.get(row["size"], 0.0))
        elif row["kind"] == "bandwidth":
            bandwidth[row["size"]] = row["value"]
        else:
            single[row["kind"]] = row["value"]
    if "float32" not in matmul or not bandwidth:
        return None
    return Ceilings(
        source="probe",
        name=name,
        matmul={precision: _curve(list(points.items())) for precision, points in matmul.items()},
        bandwidth=_curve(list(bandwidth.items())),
        dispatch_s=single.get("dispatch"),
        execution_s=single.get("execution"),
        copy_to_device=single.get("copy_to_device"),
        copy_from_device=single.get("copy_from_device"),
        software_adapter=any(row.get("software_adapter") for row in good),
    )


@cache
def datasheets() -> tuple[dict[str, str], ...]:
    """The rows of ``datasheet.csv``: makers' published figures, dense (without sparsity), with the page that states each."""
    import csv

    text = Path(__file__).with_name("datasheet.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def words_of(name: str) -> set[str]:
    """The words of a device's name, in lower case: ``NVIDIA A100-SXM4-80GB`` has a100, sxm4 and 80gb among them."""
    return set(re.sub(r"[^a-z0-9+]+", " ", name.lower()).split())


def from_datasheet(name: str) -> Ceilings | None:
    """Of the device that ``name`` contains the words of: ``NVIDIA H200`` is the row h200. None where there is no row."""
    words = words_of(name)
    fitting = [row for row in datasheets() if set(row["words"].split()) <= words]
    if not fitting:
        return None
    row = max(fitting, key=lambda each: len(each["words"]))
    tera = {
        precision: float(row[f"{precision}_tflops"] or 0) * 1e12 for precision in ("float32", "float16", "bfloat16", "int8")
    }
    rate = float(row["bandwidth_gb_per_s"]) * 1e9
    return Ceilings(
        source="datasheet",
        name=row["name"],
        matmul={precision: ((1.0, value),) for precision, value in tera.items() if value},
        bandwidth=((1.0, rate),),
        memory_bytes=int(float(row["memory_gb"]) * 1e9) if row["memory_gb"] else None,
        facts={"source": row["source"], "kind": row["kind"]},
    )
