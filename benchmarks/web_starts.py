"""What the benchmarks of web optimisations share: a case (a model in a browser with switches), one start of it, two compared."""

from __future__ import annotations

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
from ipfs_accelerate_py.web import profiles
from ipfs_accelerate_py.web.audio_front_end import audio_spec
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.measured_effects import LOOPBACK
from ipfs_accelerate_py.web.optimized_session import Audio, OptimizedSession, effects
from ipfs_accelerate_py.web.protocol import RecordedPipeline
from ipfs_accelerate_py.web.shaped_link import Wrapper
from ipfs_accelerate_py.web.switches import Switches

STEADY_ITERATIONS = 5
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


def start(case: Case, made: Prepared, steady: int = STEADY_ITERATIONS) -> dict[str, list[float]]:
    """One launch. Milliseconds from navigation to ``ready`` and to the ``first_result``, of the ``first_inference`` and of each ``steady``
    one, all by the page's clock."""
    options = OpenOptions(folder=made.folder, engine="onnxruntime-web", browser=case.browser, inputs=made.inputs)
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


def interleaved(
    pairs: Sequence[tuple[Case, Case]], launches: int, seed: int, store_path: Path, benchmark: str, steady: int, budget_s: float
) -> None:
    """``launches`` of each case, all cases in a new random order each round; each launch goes into the store. Stops after the round in
    which ``budget_s`` is used up."""
    order, began = random.Random(seed), time.monotonic()
    cases = [case for pair in pairs for case in pair]
    models = {id(case): prepared(case) for case in cases}
    store = Store.create_or_open(store_path)
    with store.campaign_lock():
        campaign = store.begin_campaign({"benchmark": benchmark}, request_hash=benchmark, command=" ".join(sys.argv), seed=seed)
        for case in cases:
            if case.record:
                start(case, models[id(case)], 0)
            elif case.switches.keep:
                start(replace(case, times={}), models[id(case)], 0)  # the start that fills the profile
        numbers = itertools.count()  # both sides have one spec, and a store takes each index of a spec once
        for index in range(launches):
            for case in order.sample(cases, len(cases)):
                _launch(case, models[id(case)], store, campaign, next(numbers), steady)
            if time.monotonic() - began > budget_s:
                print(f"stopped after {index + 1} launches of each: {budget_s:g} s are over", file=sys.stderr)
                break
        store.ingest()
        store.finish_campaign(campaign)


def _launch(case: Case, made: Prepared, store: Store, campaign: str, index: int, steady: int) -> None:
    target = Target(platform="webgpu", engine="onnxruntime-web", browser=case.browser)
    record = LaunchRecord.begin(campaign, Spec(workload=made.workload, target=target), index, index)
    record = replace(record, machine=machine.fingerprint(), environment=machine.environment())
    began = time.monotonic()
    try:
        found = start(case, made, steady)
    except LaunchError as error:
        print(f"{case.name} {index}: {error.error_class}: {error}", file=sys.stderr)
        spool(replace(record, error_class=error.error_class, error_message=str(error)), store.spool_folder)
        return
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
    print(f"{case.name} {index}: {told} ms", file=sys.stderr)


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


def forget_profiles() -> None:
    """Kept profiles of this benchmark's earlier runs would make a first start warm."""
    profiles.clear()
