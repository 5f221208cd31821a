"""What our stopwatch and session add to an engine's own call: blocks of both alternate in one process, on one session.

    python benchmarks/stopwatch_overhead.py [--processes 6] [--blocks 30] [--sequence-length 128]

Blocks of 20 iterations through our session and stopwatch alternate with blocks of the engine's own call between two clock reads, so that
drift of the machine falls on both. A process gives the median of its block ratios; the interval is of the median over processes. The
floor is 1. What is added is a fixed time, so that its share falls as the model grows: both are printed. What a whole launch
adds (its process, its warm-up, its stopping rule) is in harness_overhead.py, where launches differ by more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.registry import resolve, workload
from ipfs_accelerate_py.paths import cache_folder

ITERATIONS = 20


def block_medians(engine: str, folder: Path, blocks: int) -> list[tuple[float, float]]:
    """Median nanoseconds of ours and of bare, one pair per pair of blocks."""
    from ipfs_accelerate_py.measure.stopwatch import stopwatch
    from ipfs_accelerate_py.platforms.base import OpenOptions
    from ipfs_accelerate_py.platforms.registry import platform

    inputs = load_tensors(folder / "inputs.npz")
    work = workload(resolve("bert"), sequence_length=inputs["input_ids"].shape[1])
    session = platform("cpu").open(work, "default", OpenOptions(folder=folder, engine=engine))
    session.load()
    session.compile()
    watch = stopwatch(session, inputs, None)
    if engine == "onnxruntime":
        own = session.sessions["model"]

        def call() -> object:
            return own.run(None, inputs)
    else:
        import torch

        module, tensors = session.graphs["model"].module, [torch.from_numpy(value) for value in inputs.values()]

        def call() -> object:
            with torch.inference_mode():
                return module(*tensors).numpy()

    def bare() -> float:
        times = []
        for _ in range(ITERATIONS):
            began = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - began)
        return float(np.median(times))

    def ours() -> float:
        return float(np.median([sample.total_ns for sample in watch.samples(ITERATIONS)]))

    for _ in range(10):
        bare()
    pairs = []
    for block in range(blocks):  # the order turns round, so that neither side always comes second
        first, second = (ours(), bare()) if block % 2 else (bare(), ours())[::-1]
        pairs.append((first, second))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "torch"], choices=["onnxruntime", "torch"])
    parser.add_argument("--processes", type=int, default=6, help="6 is the least that has an interval")
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--sequence-length", type=int, default=None, help="tokens; the model's own default otherwise")
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(block_medians(arguments.one[0], Path(arguments.one[1]), arguments.blocks)))
        return
    reference = resolve("bert")
    folder = prepare_in_child(
        workload(reference, sequence_length=arguments.sequence_length), reference, cache_folder() / "models", lambda phase: None
    )
    print(f"machine: {machine.fingerprint()}")
    for engine in arguments.engines:
        command = [sys.executable, __file__, "--one", engine, str(folder), "--blocks", str(arguments.blocks)]
        ratios, added_us = [], []
        for _ in range(arguments.processes):
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            ours, bare = np.array(json.loads(answer.splitlines()[-1])).T
            ratios.append(float(np.median(ours / bare)))
            added_us.append(float(np.median(ours - bare)) / 1e3)
        interval = median_interval(ratios)
        between = f"[{interval.low:.4f}, {interval.high:.4f}]" if interval else "(too few processes for an interval)"
        print(
            f"{engine}: ours / bare = {np.median(ratios):.4f} {between} over {len(ratios)} processes; floor 1; "
            f"{np.median(added_us):.0f} us an iteration"
        )


if __name__ == "__main__":
    main()
