"""Probe the devices of this machine, and store what each can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LaunchError, UnavailableError, UserError, nearest
from ...platforms.base import Available, Unavailable
from ...platforms.registry import probe
from ...spec import BROWSER_PLATFORMS, PLATFORMS, Target
from .plan import BROWSER_CHAINS, CHAINS, SOFTWARE_CHAINS, Chain, evaluate
from .timing import graph_times, torch_copies, torch_times

TORCH_PRECISIONS = {"cpu": ("float32",), "cuda": ("float32", "float16", "bfloat16"), "rocm": ("float32", "float16", "bfloat16")}
DEVICE_MEMORY = ("cuda", "rocm")  # whose tensors are copied to and from the host
ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Probed:
    """Of one target: its rows, or the reason why there are none."""

    target: Target
    rows: list[dict[str, Any]]
    seconds: float
    facts: dict[str, Any]
    unavailable: str = ""


def targets(
    platforms: Sequence[str], browsers: Sequence[str], engines: Sequence[str], threads: int | None
) -> Iterator[tuple[Target, str]]:
    """Every target that was asked for, with the reason why it is not to be had, or nothing. All that are here by default.

    UserError for a platform that is none.
    """
    for name in platforms:
        if name not in PLATFORMS:
            raise nearest(name, PLATFORMS, "platform")
    for name in platforms or PLATFORMS:
        answer = probe(name)
        if isinstance(answer, Unavailable):
            yield Target(platform=name, engine="any"), f"{answer.reason} {answer.remedy}".strip()
            continue
        yield from ((each, "") for each in _of(name, answer, browsers, engines, threads))


def _of(name: str, answer: Available, browsers: Sequence[str], engines: Sequence[str], threads: int | None) -> Iterator[Target]:
    device = Target.with_threads("default", threads)
    for engine in answer.engines:
        if engines and engine not in engines:
            continue
        if name not in BROWSER_PLATFORMS:
            yield Target(platform=name, engine=engine, device=device)
            continue
        for found in answer.devices:
            if not browsers or found.name in browsers:
                yield Target(platform=name, engine=engine, device=device, browser=found.name)


def chains_of(target: Target) -> tuple[Chain, ...]:
    """As many as fit into a minute there. WebGPU's adapter may be a software one, which is only known when it runs."""
    if target.platform == "webgpu":
        return SOFTWARE_CHAINS
    return BROWSER_CHAINS if target.platform in BROWSER_PLATFORMS else CHAINS


def probe_target(target: Target) -> Probed:
    """Probe one target. What its engine cannot do is a reason, not an error."""
    start = time.perf_counter()
    chains = chains_of(target)
    rows: list[dict[str, Any]] = []
    try:
        if target.engine == "torch":
            facts: dict[str, Any] = {}
            for precision in TORCH_PRECISIONS.get(target.platform, ("float32",)):
                times, facts = torch_times(target, chains, precision)
                rows += evaluate(times, precision, ELEMENT_BYTES[precision])
            if target.platform in DEVICE_MEMORY:
                rows += torch_copies(target)
        else:
            graphs, facts = graph_times(target, chains)
            rows = evaluate(graphs)
    except (LaunchError, UnavailableError, UserError) as error:
        return Probed(target, [], time.perf_counter() - start, {}, str(error))
    return Probed(target, rows, time.perf_counter() - start, facts)


def calibrate(
    store: Path,
    platforms: Sequence[str] = (),
    browsers: Sequence[str] = (),
    engines: Sequence[str] = (),
    threads: int | None = None,
    on_probed: Callable[[Probed], None] = lambda probed: None,
) -> list[Probed]:
    """Probe what was asked for (everything by default), and store the rows. UserError where nothing could be probed."""
    from ...measure.machine import environment, fingerprint
    from ...store.observed import add_probe
    from ...store.writer import Store

    if threads is not None and threads < 1:
        raise UserError(f"The number of threads must be at least 1, not {threads}.")
    Store.create_or_open(store)  # before a minute of work, not after it
    machine, software = fingerprint(), environment()
    found = []
    for target, missing in targets(platforms, browsers, engines, threads):
        probed = Probed(target, [], 0.0, {}, missing) if missing else probe_target(target)
        if probed.rows:
            for row in probed.rows:
                row["facts"] |= {"engine": probed.facts}
            add_probe(store, target, machine, software, probed.rows)
        found.append(probed)
        on_probed(probed)
    if not any(probed.rows for probed in found):
        reasons = " ".join(f"{probed.target.label}: {probed.unavailable}" for probed in found)
        raise UserError(f"Nothing could be probed. {reasons or 'No engine or browser of that name is here.'}")
    return found
