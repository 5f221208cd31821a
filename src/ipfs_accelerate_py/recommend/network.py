"""The collectives between a place's devices: as probed on this machine, else from the makers' figures of the link, and then marked so."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from ..predict.ceilings import words_of
from . import collectives
from .collectives import Communication, Line
from .places import Place

LATENCY_S = 20e-6  # of one NCCL collective within a host; an assumption of the usual size, not measured


def network(place: Place, devices: int) -> Communication | None:
    """None for one device."""
    if devices == 1:
        return None
    backend = "nccl" if place.platform in ("cuda", "rocm") else "gloo"
    if place.here and (probed := collectives.load(devices, backend)) is not None:
        return probed
    if backend == "gloo":  # through the host's memory, whose rate is not known without a probe
        return _of_link(devices, 1e9, backend, "memory of the host, 1 GB/s (assumed)", "assumed")
    row = _link(place.description)
    source = "datasheet" if row["words"] else "assumed"
    return _of_link(devices, float(row["gb_per_s_each_way"]) * 1e9, backend, f"{row['kind']}, {row['source']}", source)


def _of_link(devices: int, rate: float, backend: str, device: str, source: str) -> Communication:
    """A ring's traffic (Patarasuk and Yuan, 2009, https://doi.org/10.1016/j.jpdc.2008.09.002): (n - 1) / n of the tensor to gather or
    scatter it, twice that to reduce it to all."""
    once = rate * devices / (devices - 1)
    return Communication(
        processes=devices,
        lines={
            "all_reduce": Line(LATENCY_S, once / 2),
            "all_gather": Line(LATENCY_S, once),
            "reduce_scatter": Line(LATENCY_S, once),
        },
        source=source,
        backend=backend,
        device=device,
    )


@cache
def _rows() -> tuple[dict[str, str], ...]:
    return tuple(csv.DictReader((files(__package__) / "interconnect.csv").read_text(encoding="utf-8").splitlines()))


def _link(description: str) -> dict[str, str]:
    words = words_of(description)
    return max((row for row in _rows() if set(row["words"].split()) <= words), key=lambda row: len(row["words"]))
