"""A campaign at the terminal: the plan as a table, progress with the time left, and where the report is."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..campaign.estimate import estimate
from ..campaign.plan import Plan, Request, make_plan, probe_target
from ..campaign.prepare_plan import prepare_plan
from ..campaign.run import PHASE_LIMITS_S, run_campaign
from ..errors import UserError
from ..measure import machine
from ..paths import cache_folder
from ..platforms.registry import platform_names
from ..spec import identity
from ..store import queries
from ..store.writer import Store
from ..web.browsers import environment_variable, find_browser
from .campaign_progress import Bars, console, duration


def _plan(request: Request) -> Plan:
    request = replace(request, browsers=tuple(_browser_key(name) for name in request.browsers)).checked()
    with console.status("Asking the platforms and browsers of this machine ..."):
        probed = {name: probe_target(name, simulate=request.simulate) for name in request.platforms or platform_names()}
    return make_plan(request, probed)


def _browser_key(name: str) -> str:
    """The key of a browser named by its executable, which is then the one that every launch finds under this key."""
    if os.sep not in name:
        return name
    browser = find_browser(name)
    os.environ[environment_variable(browser.key)] = str(browser.executable)
    return browser.key


def show_plan(request: Request, store_path: Path, *, as_json: bool) -> None:
    """Print what would run, what cannot and why, and how long it should take."""
    plan = _plan(request)
    past = _past(store_path, request) if store_path.exists() else []
    expected = estimate(plan, past)
    if as_json:
        print(
            json.dumps(
                {**plan.to_dict(), "estimated_s": expected.seconds, "launches_without_estimate": expected.unknown}, indent=1
            )
        )
        return
    launches = Counter(key for key, _ in plan.order)
    table = Table("model", "targets, and launches of each")
    for work in {spec.workload.hash: spec.workload for spec in plan.specs.values()}.values():
        shape = [
            work.size,
            work.weights,
            work.precision,
            *([work.mode] if work.mode != "inference" else []),
            f"batch {work.batch_size}",
        ]
        shape += [f"{work.sequence_length} tokens"] if work.sequence_length else []
        shape += [f"{work.new_tokens} new tokens"] if work.new_tokens else []
        targets = [f"{spec.target.label} × {launches[key]}" for key, spec in plan.specs.items() if spec.workload == work]
        table.add_row(f"[bold]{work.model_class}[/bold]\n[dim]{', '.join(shape)}[/dim]", ", ".join(targets))
    out = Console(highlight=False)
    out.print(table)
    for label, reason in sorted({(cell.spec.target.label, f"{cell.reason} {cell.remedy}") for cell in plan.impossible}):
        out.print(f"[dim]not here:[/dim] {label}: {reason}")
    known = f"about {duration(expected.seconds)}" if expected.seconds else "unknown"
    simulated = "simulated " if request.simulate else ""
    out.print(f"{len(plan.order)} {simulated}launches, {known}" + _without_history(expected.unknown, bool(expected.seconds)))


def _past(store_path: Path, request: Request) -> list[dict[str, Any]]:
    return queries.durations(store_path, identity(machine.fingerprint()), request.provenance)


def _without_history(unknown: int, some_known: bool) -> str:
    if not unknown:
        return " by the launches that the store holds."
    more = " plus" if some_known else ":"
    return f"{more} {unknown} launches of targets that the store has not seen yet."


def prepare_only(request: Request, *, jobs: int | None, as_json: bool) -> None:
    """Make ready all models of the plan and launch nothing. Ends with status 1 where one could not be made."""
    plan = _plan(request)
    began = time.monotonic()
    bars = Bars(plan, ())
    try:
        with bars:
            prepared = prepare_plan(
                plan, cache_folder() / "models", jobs=jobs, preparing=bars.observer.preparing, warning=bars.observer.warning
            )
    except KeyboardInterrupt:
        console.print("\nInterrupted. What is prepared is kept; the same command goes on.")
        sys.exit(130)
    made = len(prepared.folders) - prepared.found
    if as_json:
        lost = {key: str(reason) for key, reason in prepared.lost.items()}
        folders = {key: str(folder) for key, folder in prepared.folders.items()}
        print(json.dumps({"folders": folders, "made": made, "found": prepared.found, "not_prepared": lost}, indent=1))
    took = f" in {duration(time.monotonic() - began)}" if made else ""
    console.print(
        f"{made} workloads prepared{took}, {prepared.found} were ready, {len(prepared.lost)} could not be prepared. "
        "The same command without --prepare-only launches at once."
    )
    if prepared.lost:
        sys.exit(1)


def bench(
    request: Request,
    store_path: Path,
    report_path: Path,
    *,
    resume: bool,
    phase_limit_s: float | None,
    as_json: bool,
    jobs: int | None = None,
    minutes: float | None = None,
) -> None:
    """Run the campaign, write the report, print the summary. Interrupted, or out of time, it keeps what is done and says how to go on."""
    from ..report.data import from_store
    from ..report.findings import findings
    from ..report.html import write_report
    from ..report.summary import print_summary

    if minutes is not None and minutes <= 0:
        raise UserError(f"--minutes {minutes:g} makes no sense: give minutes above 0.")
    if phase_limit_s is not None and phase_limit_s <= 0:
        raise UserError(f"--phase-limit-s {phase_limit_s:g} makes no sense: give seconds above 0.")
    if report_path.resolve() == store_path.resolve():
        raise UserError(f"The report would overwrite the store {store_path}: name another file with --report.")
    plan = _plan(request)
    store = Store.create_or_open(store_path)
    limits = dict.fromkeys(PHASE_LIMITS_S, phase_limit_s) if phase_limit_s else PHASE_LIMITS_S
    interrupted = False
    past = _past(store_path, request)
    bars = Bars(plan, past)
    try:
        with bars:
            run_campaign(
                plan,
                store,
                cache_folder() / "models",
                observer=bars.observer,
                command=shlex.join(["ipfs-accelerate", *sys.argv[1:]]),
                resume=resume,
                phase_limits_s=limits,
                jobs=jobs,
                budget_s=None if minutes is None else 60 * minutes,
                past=past,
            )
    except KeyboardInterrupt:
        interrupted = True
        console.print("\nInterrupted. What is done is kept; the same command with --resume goes on.")
    if bars.left:
        console.print(
            f"\nThe {minutes:g} minutes are over: {bars.left} of {len(plan.order)} launches are left. "
            "The same command with --resume goes on."
        )
    campaign_id = bars.campaign_id
    if campaign_id is None:
        sys.exit(130)  # interrupted before a campaign began
    data = from_store(store_path, campaign_id)
    write_report(data, report_path)
    if as_json:
        answer = {
            "campaign": queries.campaign(store_path, campaign_id),
            "cells": queries.spec_summaries(store_path, campaign_id),
            "findings": findings(data),
            "report": str(report_path.resolve()),
        }
        print(json.dumps(answer, indent=1, default=str))
    else:
        print_summary(data)
    console.print(f"\nReport: [bold]{report_path.resolve()}[/bold]")
    for sentence in findings(data):
        console.print(f"  {sentence}")
    if interrupted:
        sys.exit(130)
