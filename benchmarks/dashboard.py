"""What the dashboard costs on a large store: its first view, and a change of filter, beside the query alone.

Makes a store of 20,000 simulated launches with 250 iterations each (5 million samples), serves it, and opens it in Chromium. In turns,
``--rounds`` times: the query of the matrix alone on a fresh snapshot (the floor), the first view in a fresh browser profile, from the
navigation to the drawn figure, on a server that has read the store; then a filter switched on and off in that page. Prints medians
with their range and 95 % interval, and the ratio of the first view to the floor. The first view is timed from outside the browser, its
driver included, a filter by the page itself; the times in the store are made up.

    python benchmarks/dashboard.py [--launches 20000] [--samples 250] [--rounds 8]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from ipfs_accelerate_py.measure.compare import compare_all
from ipfs_accelerate_py.measure.machine import fingerprint
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.report.cells import launch_median_interval
from ipfs_accelerate_py.report.dashboard import tables
from ipfs_accelerate_py.report.dashboard.server import serving
from ipfs_accelerate_py.report.dashboard.snapshot import Snapshots
from ipfs_accelerate_py.report.dashboard.synthetic import fill

FIRST_VIEW_AIM_MS, FILTER_AIM_MS = 1500, 200
# From the click on a box to the second frame after it: what the click did is then on the screen.
SWITCH = """(option) => new Promise((done) => {
    const box = document.querySelector(`input[data-option="${option}"]`);
    const start = performance.now();
    box.click();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""


def floor_ms(store: Path) -> tuple[float, float]:
    """Copying the store, and the query of the matrix on the copy, ms."""
    with Snapshots(store) as snapshots:
        start = time.perf_counter()
        snapshot = snapshots.current()
        copied = time.perf_counter()
        tables.shared(snapshot)
        snapshot.rows(tables.CELLS)
        return (copied - start) * 1e3, (time.perf_counter() - copied) * 1e3


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    series: dict[str, list[float]] = {
        "copy of the store": [],
        "query alone": [],
        "first view": [],
        "filter on": [],
        "filter off": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "large.duckdb"
        made = fill(store, asked.launches, asked.samples)
        facts = fingerprint()
        print(f"{made:,} simulated launches, {made * asked.samples:,} samples, {store.stat().st_size / 1e6:.0f} MB")
        print(f"{facts.get('logical_cpus')} x {facts.get('cpu_model')}; {asked.rounds} rounds")
        start = time.perf_counter()
        with serving(store) as url, sync_playwright() as driver:
            print(f"server ready after {time.perf_counter() - start:.2f} s, the store read")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            try:
                for _ in range(asked.rounds):
                    copied, queried = floor_ms(store)
                    series["copy of the store"].append(copied)
                    series["query alone"].append(queried)
                    context = browser.new_context()
                    page = context.new_page()
                    start = time.perf_counter()
                    page.goto(url)
                    page.wait_for_selector("html[data-ready] .plot .xy")
                    series["first view"].append((time.perf_counter() - start) * 1e3)
                    for name in ("filter on", "filter off"):
                        series[name].append(page.evaluate(SWITCH, "platform=webgpu"))
                    context.close()
            finally:
                browser.close()
        for name, values in series.items():
            bounds = median_interval(values)
            told = f"95 % interval [{bounds.low:.0f}, {bounds.high:.0f}]" if bounds else "n too small for an interval"
            print(
                f"{name:18} median {_median(values):6.0f} ms  {told}, range {min(values):.0f} to {max(values):.0f}, n = {len(values)}"
            )
        print(f"first view / query alone: {_median(series['first view']) / _median(series['query alone']):.2f}")
        print(f"aims: first view below {FIRST_VIEW_AIM_MS} ms, filter below {FILTER_AIM_MS} ms")
        _bootstrap(asked.samples)


def _bootstrap(samples: int) -> None:
    """What one interval and one comparison cost, which set ``tables.INTERVALS_UP_TO`` and ``views.compared.COMPARED_UP_TO``."""
    launches = [[10.0 + launch + place % 7 for place in range(samples)] for launch in range(5)]
    start = time.perf_counter()
    for _ in range(50):
        launch_median_interval(launches)
    print(f"one bootstrapped interval: {(time.perf_counter() - start) / 50 * 1e3:.1f} ms")
    start = time.perf_counter()
    compare_all({at: (launches, launches) for at in range(50)})
    print(f"one comparison: {(time.perf_counter() - start) / 50 * 1e3:.1f} ms")


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2


if __name__ == "__main__":
    main()
