"""``calibrate``: what each device can do at most, printed as it is measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ..predict.ceilings import Ceilings, from_probe
from ..predict.probes.calibrate import Probed, calibrate


def run(
    store: Path,
    platforms: Sequence[str],
    browsers: Sequence[str],
    engines: Sequence[str],
    threads: int | None,
    *,
    as_json: bool,
) -> None:
    """Probe, store and print. Progress goes to standard error."""

    def told(probed: Probed) -> None:
        typer.echo(_line(probed), err=True)

    found = calibrate(store, platforms, browsers, engines, threads, told)
    if as_json:
        print(json.dumps([_as_dict(probed) for probed in found], indent=1))
    else:
        done = sum(bool(probed.rows) for probed in found)
        print(f"{done} devices probed, measured on this machine just now; stored in {store}.")


def _ceilings(probed: Probed) -> Ceilings | None:
    return from_probe(probed.rows, probed.target.label) if probed.rows else None


def _line(probed: Probed) -> str:
    name = probed.target.label
    ceilings = _ceilings(probed)
    if ceilings is None:
        return f"{name}: unavailable, because {probed.unavailable or 'it gave no usable rates'}"
    products = max(rate for _, rate in ceilings.matmul["float32"])
    traffic = [rate for _, rate in ceilings.bandwidth]
    dispatch = "unknown" if ceilings.dispatch_s is None else f"{ceilings.dispatch_s * 1e6:.3g} µs"
    execution = "unknown" if ceilings.execution_s is None else f"{ceilings.execution_s * 1e3:.3g} ms"
    return (
        f"{name}: products {products / 1e9:.3g} GFLOP/s, weights {min(traffic) / 1e9:.3g} to {max(traffic) / 1e9:.3g} GB/s, "
        f"a small operator {dispatch}, an execution with readback {execution} ({probed.seconds:.0f} s)"
    )


def _as_dict(probed: Probed) -> dict[str, Any]:
    ceilings = _ceilings(probed)
    return {
        "target": probed.target.label,
        "provenance": "measured",
        "seconds": round(probed.seconds, 1),
        "ceilings": ceilings and ceilings.to_dict(),
        "unavailable": probed.unavailable or None,
    }
