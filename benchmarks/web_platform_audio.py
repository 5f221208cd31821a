"""A request of UnifiedWebPlatform with the audio features made on the GPU (``use_compute_shaders``) and by Python, in the same run.

    python benchmarks/web_platform_audio.py [--models whisper clap] [--size tiny] [--browsers chromium firefox] [--seconds 5]
        [--batch 1] [--launches 5] [--requests 5] [--minutes 60] [--limit-s 120] [--prepare-only]

A launch is a fresh browser; both ways are interleaved in a seeded random order. Timed is the whole request by Python's clock, from
recordings at the model's rate to the result, after one that is not counted. The ratio is GPU / Python, below 1 is faster, of medians over
launches, with the bootstrap interval over launches. Every launch goes into the store by which the platform decides whether to use the
GPU. The adapter is printed: on a software adapter the ratio says nothing about a GPU.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

from web_starts import Clock, run_arguments

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.models.processing.audio import example_waves
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.spec import Spec, Target
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web.audio_front_end import IN_PAGE, audio_spec
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.errors import WebPlatformError
from ipfs_accelerate_py.web.measured_effects import LOOPBACK, PLATFORM, adapter_of
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.switches import Switches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(IN_PAGE), choices=list(IN_PAGE))
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--browsers", nargs="+", default=["chromium", "firefox"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each recording")
    parser.add_argument("--batch", type=int, default=1, help="recordings in a request")
    parser.add_argument("--requests", type=int, default=5, help="that are timed in a launch")
    run_arguments(parser)
    arguments = parser.parse_args()
    if arguments.prepare_only:
        for model in arguments.models:
            UnifiedWebPlatform(model, "audio", "webgpu", configuration=configuration(arguments)).model.graphs("float32", print)
        return
    clock = Clock(arguments.minutes)
    print(f"machine: {machine.fingerprint()}\n")
    print("| model | browser | Python | GPU | ratio | launches | adapter |\n| --- | --- | --- | --- | --- | --- | --- |")
    for model in arguments.models:
        for browser in arguments.browsers:
            print(compared(model, browser, arguments, clock), flush=True)
    print(f"\nsamples: {arguments.store}")


def configuration(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Float32, which the front end needs."""
    return {"size": arguments.size, "weights": "synthetic", "precision": 32, **more}


def compared(model: str, browser: str, arguments: argparse.Namespace, clock: Clock) -> str:
    """A row: medians over launches, the ratio with its interval, the adapter."""
    kind = model_classes()[model]
    spec = audio_spec(model, kind.config(kind.sizes[arguments.size].config))
    waves = example_waves(arguments.batch, arguments.seconds, spec.rate, 0)
    raw: dict[str, Any] = {"audio": [(wave, spec.rate) for wave in waves]}
    if "text" in kind.raw_inputs:
        raw["text"] = ["a tone"] * arguments.batch
    store = Store.create_or_open(arguments.store)
    times: dict[bool, list[list[float]]] = {False: [], True: []}
    adapter: tuple[str, ...] = ()
    with store.campaign_lock():
        plan = {"benchmark": "web_platform_audio"}
        campaign = store.begin_campaign(plan, request_hash=str(plan), command=" ".join(sys.argv), seed=arguments.seed)
        dice = random.Random(arguments.seed)  # round by round, so that a run which ends early has some launches of both
        order = [on for _ in range(arguments.launches) for on in dice.sample((False, True), 2)]
        for index, on in enumerate(order):
            if clock.over():
                break
            try:
                launch_ms, facts = launch(model, browser, on, raw, arguments)
            except WebPlatformError as error:
                print(f"web_platform_audio {model} {browser} {index}: {error}", file=sys.stderr, flush=True)
                continue
            times[on].append(launch_ms)
            adapter = adapter_of(facts["device"])
            keep(store, campaign, index, model, browser, on, launch_ms, facts, arguments)
            store.ingest()
        store.finish_campaign(campaign)
    counts = f"{len(times[False])} and {len(times[True])}"
    if not times[False] or not times[True]:
        return f"| {model} {arguments.size} | {browser} | | | no launch of both ways ended well | {counts} | |"
    python, gpu = (statistics.median(statistics.median(each) for each in times[on]) for on in (False, True))
    interval = ratio_interval(times[True], times[False]) if min(map(len, times.values())) >= 2 else None
    between = f" ({interval.low:.2f} to {interval.high:.2f})" if interval else " (one launch: no interval)"
    return (
        f"| {model} {arguments.size} | {browser} | {python:.0f} ms | {gpu:.0f} ms | {gpu / python:.2f}{between} | "
        f"{counts} | {' '.join(adapter)} |"
    )


def launch(
    model: str, browser: str, on: bool, raw: dict[str, Any], arguments: argparse.Namespace
) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds of each request, and the facts of what ran."""
    asked = configuration(arguments, use_compute_shaders=on)
    with UnifiedWebPlatform(
        model, "audio", "webgpu", browser, configuration=asked, recovery="abort", timeout_s=arguments.limit_s
    ) as platform:
        platform.load()
        platform.run_inference(raw)
        assert platform.get_feature_usage()["audio_front_end"] == ("GPU" if on else "Python")
        launch_ms = [platform.run_inference(raw)["performance"]["total_ms"] for _ in range(arguments.requests)]
        assert platform.runner.opened
        return launch_ms, dict(platform.runner.opened.served.facts)


def keep(
    store: Store,
    campaign: str,
    index: int,
    model: str,
    browser: str,
    on: bool,
    launch_ms: list[float],
    facts: dict[str, Any],
    arguments: argparse.Namespace,
) -> None:
    work = workload(resolve(model, size=arguments.size, weights="synthetic"), batch_size=arguments.batch)
    target = Target(platform="webgpu", engine="onnxruntime-web", browser=browser)
    record = LaunchRecord.begin(campaign, Spec(workload=work, target=target), index, index)
    told = {
        "case": f"web_platform_audio {model} {browser} {'GPU' if on else 'Python'}",
        "switches": vars(Switches(gpu_audio=on)),
        "runner": PLATFORM,
        "link": LOOPBACK,
        "recordings_s": arguments.seconds,
        "browser": {"key": browser, "version": find_browser(browser).version},
        "device": facts["device"],
    }
    done = replace(
        record,
        status="ok",
        machine=machine.fingerprint(),
        environment=machine.environment(),
        duration_s=sum(launch_ms) / 1e3,
        samples_ns=tuple(round(each * 1e6) for each in launch_ms),
        software_adapter=(facts["device"] or {}).get("software_adapter"),
        facts=told,
    )
    spool(done, store.spool_folder)
    print(
        f"{told['case']} {index}: {statistics.median(launch_ms):.0f} ms at {time.strftime('%H:%M:%S')}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
