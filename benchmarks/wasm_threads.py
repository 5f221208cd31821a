"""Why the same wasm is slower in Chromium than in Firefox: for how long, and what threads have to do with it.

    python benchmarks/wasm_threads.py [--launches 5] [--seconds 8] [--threads 1 2] [--browsers chromium firefox]

Each launch is a fresh profile that runs MiniLM (bert small) on onnxruntime-web's wasm build for ``--seconds``, every iteration
kept from the first one on; launches of all cases are interleaved in a seeded random order. Chromium also runs with only its
baseline compiler (Liftoff) and with only its optimising one (TurboFan), which no user does: they bound what the stock browser does,
which starts with the first and replaces hot functions by the second, compiled in the background on the same cores.

Ratios of times to the stock ``--reference`` browser's steady time at the same thread count: the first iteration, the next ten, the slowest
ten in a row, and the last quarter (steady); medians over launches with the interval of the median. ``settles`` is the time after the
first inference from which a launch stays within 20 % of its steady time. ``others`` is the share of the machine that other
processes took: above a few per cent, threads that wait for each other are measured and not the browser. Samples go into ``--store``.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.record import LaunchRecord, uuid7
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.registry import resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.page_session import PageSession

COMPILERS = {"baseline only": "--js-flags=--liftoff-only", "optimising only": "--js-flags=--no-liftoff"}
WINDOW = 10
SETTLED = 1.2


@dataclass(frozen=True)
class Case:
    browser: str
    threads: int
    compiler: str = "stock"

    @property
    def flags(self) -> tuple[str, ...]:
        return () if self.compiler == "stock" else (COMPILERS[self.compiler],)


@dataclass
class Times:
    """Milliseconds of each launch of a case; ``settles_s`` seconds, ``others`` share of all cores."""

    first: list[float] = field(default_factory=list)
    early: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    settles_s: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, first_ns: int, samples_ns: list[int], others: float) -> None:
        samples = np.array(samples_ns) / 1e6
        windows = np.median(np.lib.stride_tricks.sliding_window_view(samples, WINDOW), axis=1)
        steady = float(np.median(samples[-len(samples) // 4 :]))
        self.first.append(first_ns / 1e6)
        self.early.append(float(np.median(samples[:WINDOW])))
        self.slowest.append(float(windows.max()))
        self.steady.append(steady)
        # From the last window that is still slow: before it, a quick stretch may be luck.
        slow = np.flatnonzero(windows > SETTLED * steady)
        self.settles_s.append(float(samples[: slow[-1] + WINDOW].sum()) / 1e3 if slow.size else 0.0)
        self.others.append(others)


def launch(case: Case, work: Workload, folder: Path, seconds: float) -> tuple[LaunchRecord, float]:
    """The record of one launch, all its iterations in ``samples_ns``, and the share of the machine that others took."""
    options = OpenOptions(
        folder=folder,
        engine="onnxruntime-web",
        browser=case.browser,
        threads=case.threads,
        inputs=load_tensors(folder / "inputs.npz"),
    )
    session = PageSession(find_browser(case.browser), "wasm", work, options, extra_flags=case.flags)
    try:
        phases_ns = session.timed_phases()
        first, _ = session.timed_first()
        began, own = psutil.cpu_times(), _cpu_seconds(session)
        samples: list[int] = []
        while sum(samples) < seconds * 1e9 or len(samples) < 2 * WINDOW:
            samples += [sample.total_ns for sample in session.timed_samples(WINDOW)]
        ended = psutil.cpu_times()
        idle = ended.idle - began.idle
        total = sum(ended[:8]) - sum(began[:8])
        others = max(0.0, (total - idle - (_cpu_seconds(session) - own)) / total)
        record = LaunchRecord(
            launch_id=uuid7(),
            campaign_id="",
            spec=Spec(workload=work, target=Target(platform="wasm", engine="onnxruntime-web", browser=case.browser)),
            launch_index=0,
            order_index=0,
            started_at=datetime.now(UTC).isoformat(),
            duration_s=sum(samples) / 1e9,
            provenance="measured",
            status="ok",
            phases_ns={**phases_ns, "first_inference": first.total_ns, "steady": sum(samples)},
            samples_ns=tuple(samples),
            clock_resolution_ns=session.clock_resolution_ns,
            facts={**session.facts(), "flags": list(case.flags), "others": others},
            machine=machine.fingerprint(),
            environment=machine.environment(),
        )
        return record, others
    finally:
        session.close()


def _cpu_seconds(session: PageSession) -> float:
    root = psutil.Process(session.process_ids()[0])
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _ratio(values: list[float], reference: float) -> str:
    interval = median_interval(np.array(values) / reference)
    between = f"[{interval.low:.2f}, {interval.high:.2f}]" if interval else f"(n={len(values)})"
    return f"{np.median(values) / reference:6.2f} {between}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=6, help="of each case; 6 are the least that give an interval")
    parser.add_argument("--seconds", type=float, default=8.0, help="of iterations in each launch")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(os.cpu_count() or 1, 4)}))
    parser.add_argument("--browsers", nargs="+", default=["chromium", "firefox"])
    parser.add_argument("--reference", default="firefox")
    parser.add_argument("--sequence-length", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "wasm_threads.duckdb")
    arguments = parser.parse_args()

    reference = resolve("bert", size="small")
    work = workload(reference, sequence_length=arguments.sequence_length)
    folder = prepare_in_child(work, reference, cache_folder() / "models", lambda phase: None)
    cases = [Case(browser, threads) for browser in {*arguments.browsers, arguments.reference} for threads in arguments.threads]
    chromium = [key for key in arguments.browsers if find_browser(key).kind == "chromium"]
    cases += [Case(key, threads, compiler) for key in chromium[:1] for threads in arguments.threads for compiler in COMPILERS]
    cases.sort(key=lambda case: (case.threads, case.browser, case.compiler))
    order = [(index, case) for index in range(arguments.launches) for case in cases]
    random.Random(arguments.seed).shuffle(order)

    times = {case: Times() for case in cases}
    store = Store.create_or_open(arguments.store)
    with store.campaign_lock():
        plan = {"benchmark": "wasm_threads", "cases": [vars(case) for case in cases]}
        campaign = store.begin_campaign(plan, request_hash="wasm_threads", command=" ".join(sys.argv), seed=arguments.seed)
        for position, (_, case) in enumerate(order):
            record, others = launch(case, work, folder, arguments.seconds)
            times[case].add(record.phases_ns["first_inference"], list(record.samples_ns), others)
            numbered = {**vars(record), "campaign_id": campaign, "launch_index": position, "order_index": position}
            spool(LaunchRecord(**numbered), store.spool_folder)
            print(f"{position + 1}/{len(order)} {case}: steady {times[case].steady[-1]:.1f} ms", file=sys.stderr)
        store.ingest()
        store.finish_campaign(campaign)

    print(f"{work.model_class} {work.size} ({work.origin}), batch 1, {work.sequence_length} tokens")
    print(f"ratios to {arguments.reference}'s steady time, medians of {arguments.launches} launches")
    print(f"machine: {machine.fingerprint()}")
    print(f"{'threads browser compiler':44}{'first':>20}{'next ten':>20}{'slowest ten':>20}{'steady':>20}  settles  others")
    for case, measured in times.items():
        base = float(np.median(times[Case(arguments.reference, case.threads)].steady))
        columns = "".join(
            f"{_ratio(values, base):>20}" for values in (measured.first, measured.early, measured.slowest, measured.steady)
        )
        label = f"{case.threads} {case.browser} {find_browser(case.browser).version} {case.compiler}"
        print(f"{label:44}{columns}  {np.median(measured.settles_s):5.1f} s  {np.median(measured.others):5.0%}")
    print(f"samples: {arguments.store}")


if __name__ == "__main__":
    main()
