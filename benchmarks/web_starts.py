"""What the benchmarks of web optimisations share: a case (a model in a browser with switches), one start of it, two compared, and a run of
launches that fits the minutes that a machine is at hand: models are made ready before, every wait has a limit, each launch is in the
store when the next begins, and the run ends between two of them."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.processing.audio import example_waves
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web.audio_front_end import audio_spec
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.measured_effects import LOOPBACK, store_path
from ipfs_accelerate_py.web.optimized_session import Audio, OptimizedSession, effects
from ipfs_accelerate_py.web.protocol import RecordedPipeline
from ipfs_accelerate_py.web.shaped_link import Wrapper
from ipfs_accelerate_py.web.switches import Switches

STEADY_ITERATIONS = 5
GIVES_UP_AFTER = 2  # launches of a case that failed, where none has ended well
HEADER = (
    "| model | browser | what | off | on | ratio on / off | launches | case and adapter |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass
class Case:
    """One side of a comparison. ``recordings_s`` gives audio models PCM of that length instead of features, at ``sample_rate``; 0 is
    features as inputs. ``record`` compiles the pipelines of an untimed first start."""

    name: str
    browser: str
    model: str
    size: str
    switches: Switches
    batch: int = 1
    recordings_s: float = 0.0
    record: bool = False
    link: Callable[[], Wrapper] | None = None
    link_name: str = LOOPBACK
    pipelines: Sequence[RecordedPipeline] = ()
    times: dict[str, list[float]] = field(default_factory=dict)  # by what was timed, ms, one of each launch
    last_report: dict[str, Any] = field(default_factory=dict)
    last_facts: dict[str, Any] = field(default_factory=dict)
    started: bool = False  # once before, where it records or keeps


@dataclass
class Prepared:
    folder: Path
    workload: Workload
    inputs: dict[str, np.ndarray]
    audio: Audio | None


def prepared(case: Case, seed: int = 0) -> Prepared:
    """The case's model, prepared for as many rows as its recordings make."""
    named = model_classes()[case.model]
    audio, batch = None, case.batch
    if case.recordings_s:
        spec = audio_spec(case.model, named.config(named.sizes[case.size].config))
        waves = example_waves(case.batch, case.recordings_s, spec.rate, seed)
        audio = Audio(spec, [wave.astype(np.float32) for wave in waves], spec.rate)
        rows = 1 + max(0, -(-(len(waves[0]) - spec.samples) // spec.row_step)) if spec.row_step else 1
        batch = rows * case.batch
    reference = resolve(case.model, size=case.size, weights="synthetic")
    work = workload(reference, batch_size=batch)
    folder = prepare_in_child(work, reference, cache_folder() / "models", lambda phase: None)
    inputs = load_tensors(folder / "inputs.npz")
    if audio:
        inputs.pop(audio.spec.input)
    return Prepared(folder, work, inputs, audio)


def start(case: Case, made: Prepared, steady: int, limit_s: float) -> dict[str, list[float]]:
    """One launch. Milliseconds from navigation to ``ready`` and to the ``first_result``, of the ``first_inference`` and of each ``steady``
    one, all by the page's clock. LaunchError where a step takes ``limit_s``."""
    limits = {"default": limit_s}
    options = OpenOptions(
        folder=made.folder, engine="onnxruntime-web", browser=case.browser, inputs=made.inputs, limits_s=limits
    )
    link = case.link() if case.link else None
    with OptimizedSession(
        find_browser(case.browser),
        "webgpu",
        made.workload,
        options,
        case.switches,
        audio=made.audio,
        link=link,
        pipelines=case.pipelines,  # none of those that earlier runs remembered
    ) as session:
        case.last_report = session.prepare()
        first, _ = session.first()
        if case.record and not case.pipelines:
            case.pipelines = session.recorded()
        samples = session.samples(steady) if steady else []
        case.last_facts = session.facts()
    ready = case.last_report["marks_ms"]["ready"]
    return {
        "ready": [ready],
        "first_inference": [first.total_ns / 1e6],
        "first_result": [ready + first.total_ns / 1e6],
        "steady": [sample.total_ns / 1e6 for sample in samples],
    }


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every run of launches."""
    parser.add_argument("--launches", type=int, default=5, help="of each side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no launch begins")
    parser.add_argument("--limit-s", type=float, default=120.0, help="of each step of a launch")
    parser.add_argument("--prepare-only", action="store_true", help="make the models' files ready, and measure nothing")
    parser.add_argument("--store", type=Path, default=store_path(), help="where the web platform looks too")


class Clock:
    """Says once that the minutes are over."""

    def __init__(self, minutes: float) -> None:
        self._minutes, self._end = minutes, time.monotonic() + 60 * minutes
        self._told = False

    def over(self) -> bool:
        if time.monotonic() < self._end:
            return False
        if not self._told:
            print(f"{self._minutes:g} minutes are over: what was measured until now follows", file=sys.stderr, flush=True)
        self._told = True
        return True


def interleaved(
    pairs: Sequence[tuple[Case, Case]], benchmark: str, steady: int, arguments: argparse.Namespace, clock: Clock
) -> None:
    """Launches of every case, all in a new random order each round, until there are ``arguments.launches`` of each or the time is over.
    A case that fails from the beginning is given up. With ``prepare_only`` nothing is started."""
    order = random.Random(arguments.seed)
    cases = [case for pair in pairs for case in pair]
    models = {id(case): prepared(case) for case in cases}
    if arguments.prepare_only:
        return
    store = Store.create_or_open(arguments.store)
    with store.campaign_lock():
        command = " ".join(sys.argv)
        campaign = store.begin_campaign({"benchmark": benchmark}, request_hash=benchmark, command=command, seed=arguments.seed)
        numbers = itertools.count()  # both sides have one spec, and a store takes each index of a spec once
        failures = dict.fromkeys(map(id, cases), 0)
        for _ in range(arguments.launches):
            for case in order.sample(cases, len(cases)):
                if clock.over():
                    break
                if failures[id(case)] >= GIVES_UP_AFTER and not case.times:
                    continue
                ended_well = _launch(case, models[id(case)], store, campaign, next(numbers), steady, arguments.limit_s)
                failures[id(case)] += not ended_well
                store.ingest()
        store.finish_campaign(campaign)


def _first_start(case: Case, made: Prepared, limit_s: float) -> None:
    """The untimed start that records pipelines or fills the kept profile, before the case's first launch."""
    if case.started:
        return
    if case.record or case.switches.keep:
        start(case, made, 0, limit_s)
    case.started = True


def _launch(case: Case, made: Prepared, store: Store, campaign: str, index: int, steady: int, limit_s: float) -> bool:
    """Whether it ended well. It goes into the store in any case."""
    target = Target(platform="webgpu", engine="onnxruntime-web", browser=case.browser)
    record = LaunchRecord.begin(campaign, Spec(workload=made.workload, target=target), index, index)
    record = replace(record, machine=machine.fingerprint(), environment=machine.environment())
    began = time.monotonic()
    try:
        _first_start(case, made, limit_s)
        began = time.monotonic()
        found = start(case, made, steady, limit_s)
    except LaunchError as error:
        print(f"{case.name} {index}: {error.error_class}: {error}", file=sys.stderr, flush=True)
        spool(replace(record, error_class=error.error_class, error_message=str(error)), store.spool_folder)
        return False
    for what, values in found.items():
        if values:
            case.times.setdefault(what, []).append(float(np.median(values)))
    device, browser = case.last_facts["device"] or {}, find_browser(case.browser)
    record = replace(
        record,
        status="ok",
        duration_s=time.monotonic() - began,
        phases_ns={"first_inference": round(found["first_inference"][0] * 1e6), "load": round(found["ready"][0] * 1e6)},
        samples_ns=tuple(round(value * 1e6) for value in found["steady"]),
        software_adapter=device.get("software_adapter"),
        facts={
            "case": case.name,
            "switches": vars(case.switches),
            "effects": effects(case.last_report),
            "link": case.link_name,
            "recordings_s": case.recordings_s,
            "browser": {"key": browser.key, "name": browser.name, "version": browser.version},
            **case.last_facts,
        },
    )
    spool(record, store.spool_folder)
    told = ", ".join(f"{what} {np.median(values):.0f}" for what, values in found.items() if values)
    print(f"{case.name} {index}: {told} ms", file=sys.stderr, flush=True)
    return True


def compared(off: Case, on: Case, what: str) -> str:
    """A row under HEADER: medians, the ratio on / off with its interval, launches, and where it ran."""
    a, b = off.times.get(what, []), on.times.get(what, [])
    if not a or not b:
        return f"| {on.model} {on.size} | {on.browser} | {what} | | | no launch of both sides ended well | | {on.name} |"
    ratio = float(np.median(b) / np.median(a))
    between = "too few for an interval"
    if min(len(a), len(b)) >= 2:
        interval = ratio_interval([[value] for value in b], [[value] for value in a])
        between = f"{interval.low:.2f} to {interval.high:.2f}"
    return (
        f"| {on.model} {on.size} | {on.browser} | {what.replace('_', ' ')} | {np.median(a):.0f} ms | {np.median(b):.0f} ms "
        f"| {ratio:.2f} ({between}) | {len(a)} and {len(b)} | {on.name}; {adapter_of(on)} |"
    )


def adapter_of(case: Case) -> str:
    device = case.last_facts.get("device") or {}
    name = " ".join(filter(None, (device.get(key, "") for key in ("vendor", "architecture", "device")))) or "name hidden"
    kind = {True: "software adapter", False: "GPU"}.get(device.get("software_adapter"), "adapter of unknown kind")
    return f"{name}, {kind}"
