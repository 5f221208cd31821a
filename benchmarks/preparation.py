"""How long models take to prepare, step by step, in how much memory, and what several at a time save.

    python benchmarks/preparation.py [--models bert,vit,...] [--size base] [--batch-sizes 1,8] [--exported] [--jobs N] [--rounds 2]

For each model a fresh process with a fresh cache: seconds of the imports and of each step, its peak memory, and that beyond the imports
over the float32 weights (``campaign/needs.py`` rests on these). Then all models together, fresh caches, with one job and with N (by
default what a campaign takes here), alternately; the ratio of the times of each round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from ipfs_accelerate_py.campaign.needs import weights_bytes
from ipfs_accelerate_py.campaign.plan import Request, make_plan
from ipfs_accelerate_py.campaign.prepare_plan import default_jobs, prepare_plan
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.memory import own_peak_bytes
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.platforms.base import Available, Device
from ipfs_accelerate_py.platforms.processor import default_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(model_classes()))
    parser.add_argument("--size", default=None, help="each class's smallest published one by default")
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--exported", action="store_true", help="with ONNX files; otherwise for torch alone")
    parser.add_argument("--jobs", type=int, default=default_jobs(default_threads()))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(size) for size in options.batch_sizes.split(",")]
    if options.one:
        print(json.dumps(one(options.one, options.size, batches, options.exported)))
        return
    names = options.models.split(",")
    print(f"machine: {machine.fingerprint()}")
    for name in names:
        flags = ["--one", name, "--batch-sizes", options.batch_sizes, *(["--exported"] if options.exported else [])]
        flags += ["--size", options.size] if options.size else []
        result = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE)
        show(json.loads(result.stdout))
    ratios = []
    for round_ in range(options.rounds):
        order = (1, options.jobs) if round_ % 2 == 0 else (options.jobs, 1)
        took = {jobs: together(names, options, batches, jobs) for jobs in order}
        ratios.append(took[options.jobs] / took[1])
        print(
            f"all {len(names)} models: 1 job {took[1]:.1f} s, {options.jobs} jobs {took[options.jobs]:.1f} s, ratio {ratios[-1]:.2f}"
        )
    if ratios:
        print(f"{options.jobs} jobs over one, {len(ratios)} rounds: {min(ratios):.2f} to {max(ratios):.2f}")


def one(name: str, size: str | None, batches: list[int], exported: bool) -> dict[str, object]:
    """Seconds by step, in this process."""
    reference = resolve(name, size, "synthetic")
    steps: list[tuple[str, float]] = [("imports", time.perf_counter())]
    import torch  # noqa: F401
    import transformers

    _ = transformers.PreTrainedModel
    if exported:
        import ipfs_accelerate_py.models.export  # noqa: F401
    from ipfs_accelerate_py.models.prepare import prepare

    imported = own_peak_bytes() or 0
    with tempfile.TemporaryDirectory() as cache:
        for batch in batches:
            steps.append((f"batch {batch}: weights and inputs", time.perf_counter()))
            prepare(
                workload(reference, batch_size=batch),
                reference,
                Path(cache),
                exported=exported,
                tell=lambda step, batch=batch: steps.append((f"batch {batch}: {step}", time.perf_counter())),  # type: ignore[misc]
            )
    steps.append(("end", time.perf_counter()))
    seconds = {step: later - now for (step, now), (_, later) in pairwise(steps)}
    return {
        "model": f"{name} {reference.size}",
        "seconds": seconds,
        "weights_bytes": weights_bytes(reference),
        "imports_bytes": imported,
        "peak_bytes": own_peak_bytes(),
    }


def show(result: dict[str, object]) -> None:
    seconds, weights = result["seconds"], result["weights_bytes"]
    imports, peak = result["imports_bytes"], result["peak_bytes"]
    assert isinstance(seconds, dict) and isinstance(weights, int) and isinstance(imports, int) and isinstance(peak, int)
    print(
        f"{result['model']}: {sum(seconds.values()):.1f} s; weights {weights / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, "
        f"imports {imports / 1e9:.2f} GB, copies {(peak - imports) / weights:.1f}"
    )
    for step, took in seconds.items():
        print(f"    {took:6.1f} s  {step}")


def together(names: list[str], options: argparse.Namespace, batches: list[int], jobs: int) -> float:
    """Seconds of preparing all models in an empty cache."""
    request = Request(
        models=tuple(names),
        sizes=(options.size,) if options.size else (),
        weights="synthetic",
        platforms=("cpu",),
        batch_sizes=tuple(batches),
        launches=1,
    )
    engines = ("torch", "onnxruntime") if options.exported else ("torch",)
    plan = make_plan(request, {"cpu": Available((Device("default", "this machine"),), engines)})
    with tempfile.TemporaryDirectory() as cache:
        began = time.monotonic()
        prepared = prepare_plan(plan, Path(cache), jobs=jobs)
        took = time.monotonic() - began
    assert not prepared.lost, prepared.lost
    return took


if __name__ == "__main__":
    main()
