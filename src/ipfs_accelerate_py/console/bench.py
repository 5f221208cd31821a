"""A campaign at the terminal: the plan as a table, progress with the time left, and where the report is."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..campaign.estimate import estimate
from ..campaign.plan import Plan, Request, make_plan, probe_target
from ..campaign.run import PHASE_LIMITS_S, Observer, run_campaign
from ..errors import UserError
from ..measure import machine
from ..paths import cache_folder
from ..platforms.registry import platform_names
from ..spec import Spec, identity
from ..store import queries
from ..store.writer import Store
from ..web.browsers import environment_variable, find_browser

console = Console(stderr=True, highlight=False)


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
    known = f"about {_duration(expected.seconds)}" if expected.seconds else "unknown"
    simulated = "simulated " if request.simulate else ""
    out.print(f"{len(plan.order)} {simulated}launches, {known}" + _without_history(expected.unknown, bool(expected.seconds)))


def _past(store_path: Path, request: Request) -> list[dict[str, Any]]:
    return queries.durations(store_path, identity(machine.fingerprint()), request.provenance)


def _without_history(unknown: int, some_known: bool) -> str:
    if not unknown:
        return " by the launches that the store holds."
    more = " plus" if some_known else ":"
    return f"{more} {unknown} launches of targets that the store has not seen yet."


def bench(
    request: Request, store_path: Path, report_path: Path, *, resume: bool, phase_limit_s: float | None, as_json: bool
) -> None:
    """Run the campaign, write the report, print the summary. Interrupted, it keeps what is done and says how to go on."""
    from ..report.data import from_store
    from ..report.findings import findings
    from ..report.html import write_report
    from ..report.summary import print_summary

    if phase_limit_s is not None and phase_limit_s <= 0:
        raise UserError(f"--phase-limit-s {phase_limit_s:g} makes no sense: give seconds above 0.")
    if report_path.resolve() == store_path.resolve():
        raise UserError(f"The report would overwrite the store {store_path}: name another file with --report.")
    plan = _plan(request)
    store = Store.create_or_open(store_path)
    limits = dict.fromkeys(PHASE_LIMITS_S, phase_limit_s) if phase_limit_s else PHASE_LIMITS_S
    interrupted = False
    bars = _Bars(plan, _past(store_path, request))
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
            )
    except KeyboardInterrupt:
        interrupted = True
        console.print("\nInterrupted. What is done is kept; the same command with --resume goes on.")
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


class _Bars:
    """Progress for a person: one bar for the campaign, the cell and phase under way, and the time left by launches so far."""

    def __init__(self, plan: Plan, past: Sequence[Mapping[str, object]]) -> None:
        self._plan = plan
        self._past = list(past)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("preparing", total=len(plan.order), left="")
        self._remaining = list(plan.order)
        self.campaign_id: str | None = None
        self._interrupted = False
        self.observer = Observer(self._began, self._preparing, self._launching, self._phase, self._ended, self._warning)
        self._label = ""

    def __enter__(self) -> _Bars:
        self._handler = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._handler)

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _began(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id

    def _preparing(self, label: str) -> None:
        self._progress.update(self._task, description=f"preparing {label}")

    def _launching(self, spec: Spec, index: int, position: int, total: int) -> None:
        if self._interrupted:  # the interrupt met code that cannot pass it on, a finaliser or a library's own
            raise KeyboardInterrupt
        self._label = f"{spec.workload.label} on {spec.target.label}"
        self._remaining = self._remaining[-(total - position) :]
        self._progress.update(self._task, completed=position, total=total, description=self._label, left=self._time_left())

    def _phase(self, name: str) -> None:
        if self._label:
            self._progress.update(self._task, description=f"{self._label} [dim]{name}[/dim]")

    def _ended(self, spec: Spec, problem: tuple[str, str] | None, seconds: float) -> None:
        target = spec.target
        self._past.append(
            {
                "spec_hash": spec.hash,
                "platform": target.platform,
                "engine": target.engine,
                "browser": target.browser,
                "duration_s": seconds,
            }
        )
        self._progress.update(self._task, advance=1)
        if problem:
            self._progress.console.print(f"  {self._label}: {problem[0]}: {problem[1]}", style="yellow", markup=False)

    def _warning(self, sentence: str) -> None:
        self._progress.console.print(f"  {sentence}", style="yellow", markup=False)

    def _time_left(self) -> str:
        rest = Plan(self._plan.request, self._plan.specs, {}, (), tuple(self._remaining))
        expected = estimate(rest, self._past)
        if expected.unknown and not expected.seconds:
            return ""
        return f"{_duration(expected.seconds)} left" + (f" + {expected.unknown} new" if expected.unknown else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else time.strftime("%H h %M min", time.gmtime(seconds))
