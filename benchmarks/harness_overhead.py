"""What measuring costs: our median for one model on the CPU against a bare loop of the same engine, launches interleaved.

    python benchmarks/harness_overhead.py [--engines onnxruntime torch] [--launches 20] [--size small]

Ours is a whole launch as ``bench`` runs it (a child process, phases, warm-up test, stopping rule, output read back). Bare is a
process with nothing but the engine's own call between two clock reads. Both use the same prepared model, inputs and thread count. The
ratio is the median over pairs of neighbouring launches; its interval is the order-statistics interval over pairs. The floor is 1:
a harness cannot be faster than what it times.

The same launches of ours also give the A/A check: split in two halves again and again, how often does ``compare`` call one half
faster or slower than the other? It should be at most 5 %. All launches go into a store (``--store``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ipfs_accelerate_py.campaign.child import run_child
from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.compare import aa_check
from ipfs_accelerate_py.measure.launch import Job
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.measure.stopping import Limits
from ipfs_accelerate_py.models.registry import resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.spec import Spec, Target
from ipfs_accelerate_py.store import queries
from ipfs_accelerate_py.store.writer import Store

WARM_UP_S, STEADY_S = 2.0, 3.0


def bare(engine: str, folder: Path, threads: int) -> list[int]:
    """Nanoseconds of each call in a loop that only an impatient user would write."""
    from ipfs_accelerate_py.models.prepared import Manifest, load_tensors

    inputs = load_tensors(folder / "inputs.npz")
    if engine == "onnxruntime":
        import onnxruntime

        from ipfs_accelerate_py.platforms.onnxruntime_session import session_options

        # The same options: with the batch and the length fixed, onnxruntime plans better than with them open.
        options = session_options(threads, Manifest.read(folder).dimensions)
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])

        def call() -> object:
            return session.run(None, inputs)
    else:
        import torch

        from ipfs_accelerate_py.models.prepare import modules

        torch.set_num_threads(threads)
        module = modules(folder)["model"].module
        tensors = [torch.from_numpy(value) for value in inputs.values()]

        def call() -> object:
            with torch.inference_mode():
                return module(*tensors).numpy()

    end = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < end:
        call()
    samples = []
    end = time.perf_counter() + STEADY_S
    while time.perf_counter() < end:
        began = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - began)
    return samples


def bare_launch(engine: str, folder: Path, threads: int) -> float:
    """Median in milliseconds of one bare process."""
    command = [sys.executable, __file__, "--bare", engine, str(folder), str(threads)]
    samples = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return float(np.median(samples)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "torch"], choices=["onnxruntime", "torch"])
    parser.add_argument("--launches", type=int, default=20, help="of each side and engine")
    parser.add_argument("--size", default="small")
    parser.add_argument("--sequence-length", type=int, default=None, help="tokens; the model's own default otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "harness_overhead.duckdb")
    parser.add_argument("--bare", nargs=3, metavar=("ENGINE", "FOLDER", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        engine, folder, threads = arguments.bare
        print(json.dumps(bare(engine, Path(folder), int(threads))))
        return

    if arguments.launches < 4:
        parser.error("--launches must be 4 or more: two on either side of an A/A split")
    reference = resolve("bert", size=arguments.size)
    work = workload(reference, sequence_length=arguments.sequence_length)
    folder = prepare_in_child(work, reference, cache_folder() / "models", lambda phase: None)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    store = Store.create_or_open(arguments.store)
    device = Target.with_threads("default", threads)
    specs = {
        engine: Spec(workload=work, target=Target(platform="cpu", engine=engine, device=device)) for engine in arguments.engines
    }
    order = random.Random(arguments.seed)
    ratios: dict[str, list[float]] = {engine: [] for engine in specs}
    with store.campaign_lock():
        campaign = store.begin_campaign(
            {"benchmark": "harness_overhead"}, request_hash="harness_overhead", command=" ".join(sys.argv), seed=arguments.seed
        )
        for index in range(arguments.launches):
            for engine, spec in sorted(specs.items(), key=lambda item: order.random()):
                job = Job(
                    campaign_id=campaign,
                    spec=spec,
                    launch_index=index,
                    order_index=index,
                    folder=str(folder),
                    spool=str(store.spool_folder),
                    limits=Limits(),
                    phase_limits_s={"default": 120.0},
                )
                sides = ["ours", "bare"]
                order.shuffle(sides)
                median_ms: dict[str, float] = {}
                for side in sides:
                    if side == "bare":
                        median_ms["bare"] = bare_launch(engine, folder, threads)
                        continue
                    ended = run_child("ipfs_accelerate_py.measure.launch", job.to_json(), job.phase_limits_s)
                    assert ended.problem is None and ended.messages[-1]["done"] == "ok", ended
                    store.ingest()
                    row = queries.launches(arguments.store, campaign_id=campaign, spec_hash=spec.hash, launch_index=index)[0]
                    median_ms["ours"] = row["median_ms"]
                ratios[engine].append(median_ms["ours"] / median_ms["bare"])
                print(f"{engine} {index}: ratio {ratios[engine][-1]:.4f}", file=sys.stderr)
        store.finish_campaign(campaign)

    facts = machine.fingerprint()
    print(f"{work.model_class} {work.size} ({work.origin}), batch 1, {work.sequence_length} tokens, {threads} threads")
    print(f"machine: {facts}")
    for engine, values in ratios.items():
        interval = median_interval(values)
        between = f"[{interval.low:.4f}, {interval.high:.4f}]" if interval else "(too few launches for an interval)"
        print(f"{engine}: ours / bare = {np.median(values):.4f} {between} over {len(values)} pairs of launches; floor 1")
        launches = [record.samples_ns for record in queries.records(arguments.store, campaign) if record.spec == specs[engine]]
        rate = aa_check(launches, splits=1000, seed=arguments.seed).rate
        print(
            f"{engine}: A/A false-positive rate {rate:.1%} over 1000 splits of {len(launches)} launches (should be at most 5 %)"
        )
    print(f"samples: {arguments.store}")


if __name__ == "__main__":
    main()
