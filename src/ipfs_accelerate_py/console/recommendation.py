"""Recommendations at the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UnavailableError, UserError
from ..recommend.collectives import Communication, probe, save
from ..recommend.select import select_optimal_hardware
from ..report.wording import count
from .options import spoken, spoken_values


def show(model: str, options: Mapping[str, Any], configuration: str | None, *, as_json: bool) -> None:
    """Print the selection, or only the configuration of that kind."""
    try:
        selection = select_optimal_hardware(model, configuration_kind=configuration, **options)
    except (UserError, UnavailableError) as error:
        raise type(error)(spoken(str(error))) from error
    if configuration is not None:
        print(selection.configuration, end="")
    elif as_json:
        print(json.dumps(spoken_values(selection.to_dict()), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(spoken(str(selection)))


def probe_collectives(processes: int, backend: str, *, as_json: bool) -> None:
    """Measure, keep and print."""
    found = probe(processes, backend)
    file = save(found)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    for line in lines(found):
        print(line)
    print(f"Kept in {file}")


def lines(found: Communication) -> list[str]:
    """A line for each collective, which a single process has none of, and the rates."""
    told = [f"{count(found.processes, 'process')}, {found.backend}, {found.device}, {found.threads} threads each"]
    for precision, rate in (found.matmul_flops_per_s or {}).items():
        told.append(f"  products at {precision}: {rate / 1e9:,.1f} GFLOP/s each")
    if found.memory_bytes_per_s is not None:
        told.append(f"  memory: {found.memory_bytes_per_s / 1e9:,.2f} GB/s each")
    if found.processes == 1:
        return told
    for name, line in found.lines.items():
        told.append(
            f"  {name}: {line.alpha_s * 1e6:,.0f} us + bytes / {line.bytes_per_s / 1e9:,.2f} GB/s "
            f"(the fit is off by {line.worst:.0%} at most)"
        )
    return told
