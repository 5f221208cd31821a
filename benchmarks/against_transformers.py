"""Each of our engines against what a user of transformers has, ``model(**inputs)`` and ``model.generate(...)``, launches interleaved.

    python benchmarks/against_transformers.py [--models bert vit llama] [--targets cpu/onnxruntime openvino/openvino] [--launches 6]
    python benchmarks/against_transformers.py --device cuda --targets cuda/torch --precision float16

Both sides run in fresh processes on the same weights, inputs and thread count, with TF32 off, measured by the same protocol and held to
the same float32 reference (a side that fails its check is said at the end), and greedy generation has as many new tokens on both sides.
The ratio is transformers' median over ours (above 1: ours is faster), the median over pairs of neighbouring launches with its interval.
Samples of both go into ``--store``, transformers' under the engine ``transformers``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from peer_outputs import checked

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.accuracy import check
from ipfs_accelerate_py.measure.launch import Job
from ipfs_accelerate_py.measure.protocol import measure
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.measure.stopping import Limits
from ipfs_accelerate_py.measure.stopwatch import stopwatch
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.platforms.base import Memory, OpenOptions, Session, Tensors
from ipfs_accelerate_py.platforms.registry import platform
from ipfs_accelerate_py.spec import Spec, Target
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store


class Transformers(Session):
    """The model as transformers runs it. Outputs are read back to NumPy inside the timed region, as ours are."""

    def __init__(self, folder: Path, device: str, precision: str, threads: int) -> None:
        self.folder, self.device, self.precision, self.threads = folder, device, precision, threads

    def load(self) -> None:
        import torch

        from ipfs_accelerate_py.models.prepare import load_model

        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = False  # as ours: float32 is float32 on both sides
        self.torch = torch
        self.model_class = model_classes()[Manifest.read(self.folder).model_class]
        self.model = load_model(self.folder, self.device, self.precision)

    def compile(self) -> None:
        """Nothing: it runs eagerly."""

    def _tensors(self, inputs: Tensors) -> dict[str, Any]:
        tensors = {name: self.torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
        dtype = self.model.dtype
        typed = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        return self.model_class.forward_inputs(self.model.config, typed)

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        with self.torch.inference_mode():
            found = self.model(**self._tensors(inputs))
        return {name: value.float().cpu().numpy() for name, value in found.items() if isinstance(value, self.torch.Tensor)}

    def generate(self, inputs: Tensors, new_tokens: int, on_token: Callable[[], None]) -> dict[str, np.ndarray]:
        from transformers.generation.streamers import BaseStreamer

        class Each(BaseStreamer):
            prompt = True

            def put(self, value: Any) -> None:
                if not self.prompt:
                    on_token()
                self.prompt = False

            def end(self) -> None:
                pass

        tensors = self._tensors(inputs)
        streamer = Each() if next(iter(inputs.values())).shape[0] == 1 else None  # generate streams single sequences only
        with self.torch.inference_mode():
            ids = self.model.generate(
                **tensors, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens, streamer=streamer
            )
        if streamer is None:
            for _ in range(new_tokens):
                on_token()
        return {"token_ids": ids[:, -new_tokens:].cpu().numpy()}

    def synchronize(self) -> None:
        if self.device.startswith("cuda"):
            self.torch.cuda.synchronize()

    def memory(self) -> Memory:
        return Memory(weights_bytes=None)

    def coverage(self) -> None:
        return None

    def close(self) -> None:
        self.model = None


def one(job: Job, device: str, threads: int) -> None:
    """One launch, in this fresh process; its record is spooled."""
    work, target, folder = job.spec.workload, job.spec.target, Path(job.folder)
    inputs = load_tensors(folder / "inputs.npz")
    if target.engine == "transformers":
        session: Any = Transformers(folder, device, work.precision, threads)
    else:
        session = platform(target.platform).open(work, "default", OpenOptions(folder, target.engine, None, threads, inputs))
    record = replace(job.begin(), machine=machine.fingerprint(), environment=machine.environment())
    found = measure(stopwatch(session, inputs, work.new_tokens), job.limits, lambda phase: None)
    times = {name: value for name, value in asdict(found).items() if name not in ("outputs", "clock_limited")}
    reference, rows = load_tensors(folder / "reference.npz"), Manifest.read(folder).reference_rows
    if target.engine == "transformers":
        accuracy = checked(found.outputs, inputs, reference, work, rows)
    else:
        accuracy = check(found.outputs, reference, work.precision, work.task, rows)
    duration_s = sum(found.phases_ns.values()) / 1e9
    spool(replace(record, status="ok", **times, accuracy=accuracy, duration_s=duration_s), Path(job.spool))
    session.close()
    print(json.dumps({"median_ns": float(np.median(found.samples_ns)), "passed": accuracy.passed, "rule": accuracy.rule}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bert", "vit", "whisper", "llama", "t5"])
    parser.add_argument("--size", default=None, help="each model's smallest published one by default")
    parser.add_argument("--targets", nargs="+", default=["cpu/torch", "cpu/onnxruntime", "openvino/openvino"])
    parser.add_argument("--device", default="cpu", help="where transformers runs: cpu or cuda")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--launches", type=int, default=6, help="of each side; 6 pairs are the least that have an interval")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    parser.add_argument("--quick", action="store_true", help="shorter series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "against_transformers.duckdb")
    parser.add_argument("--one", nargs=3, metavar=("JOB", "DEVICE", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(Job.from_json(arguments.one[0]), arguments.one[1], int(arguments.one[2]))
        return

    store = Store.create_or_open(arguments.store)
    order = random.Random(arguments.seed)
    targets = [Target(platform=name, engine=engine) for name, _, engine in (text.partition("/") for text in arguments.targets)]
    peer = Target(platform=arguments.device, engine="transformers")
    ratios: dict[tuple[str, str], list[float]] = {}
    failed: dict[str, str] = {}  # launches whose outputs did not pass, by side
    print(f"machine: {machine.fingerprint()}")
    with store.campaign_lock():
        name = "against_transformers"
        campaign = store.begin_campaign({"benchmark": name}, request_hash=name, command=" ".join(sys.argv), seed=arguments.seed)
        works = {}
        for model in arguments.models:
            reference = resolve(model, size=arguments.size)
            work = workload(reference, precision=arguments.precision, batch_size=arguments.batch_size)
            exported = any(target.engine != "torch" for target in targets)
            folder = prepare_in_child(work, reference, cache_folder() / "models", lambda phase: None, exported)
            works[model] = (work, folder)

        def median_ns(model: str, target: Target, index: int) -> float:
            work, folder = works[model]
            job = Job(
                campaign_id=campaign,
                spec=Spec(workload=work, target=target),
                launch_index=index,
                order_index=index,
                folder=str(folder),
                spool=str(store.spool_folder),
                limits=Limits.quick() if arguments.quick else Limits(),
                phase_limits_s={},
            )
            command = [sys.executable, __file__, "--one", job.to_json(), arguments.device, str(arguments.threads)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            store.ingest()
            result = json.loads(answer.splitlines()[-1])
            if not result["passed"]:
                failed[f"{model} {target.label}"] = result["rule"]
            return float(result["median_ns"])

        pairs = [(model, target) for model in arguments.models for target in targets]
        for index in range(arguments.launches):
            for number, (model, target) in enumerate(order.sample(pairs, len(pairs))):
                sides = [target, peer]
                order.shuffle(sides)
                # Each pair has a launch of transformers of its own, so its index counts pairs.
                found = {
                    side: median_ns(model, side, index if side is target else index * len(pairs) + number) for side in sides
                }
                label = (model, target.label)
                ratios.setdefault(label, []).append(found[peer] / found[target])
                print(f"{model} {target.label} {index}: {ratios[label][-1]:.3f}", file=sys.stderr)
        store.finish_campaign(campaign)
    for (model, label), values in sorted(ratios.items()):
        interval = median_interval(values)
        between = f"[{interval.low:.2f}, {interval.high:.2f}]" if interval else f"(n={len(values)}: too few for an interval)"
        theirs = f"transformers {arguments.device} / ours"
        print(f"{model} · {label}: {theirs} = {np.median(values):.2f} {between} over {len(values)} pairs of launches")
    for side, rule in sorted(failed.items()):
        print(f"CHECK FAILED: {side}: {rule}")
    print(json.dumps({f"{model} {label}": values for (model, label), values in ratios.items()}))
    print(f"samples: {arguments.store}")


if __name__ == "__main__":
    main()
