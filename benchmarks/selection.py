"""How good the recommendation is: ranking, memory, training and how fast it answers. Each part prints its own table.

    python benchmarks/selection.py --ranking       # held-out models of the reference data: Kendall's tau, regret of the first choice
    python benchmarks/selection.py --memory        # inference memory by formula against the reference data's peaks
    python benchmarks/selection.py --activations   # what a forward pass saves, by formula against torch's allocator, every class
    python benchmarks/selection.py --training      # step memory and time on this CPU: one process, and two over gloo
    python benchmarks/selection.py --latency       # how long a recommendation takes in fresh processes, beside importing numpy

Run it on an idle machine: the last two are timings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np

from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.paths import reference_folders
from ipfs_accelerate_py.recommend import activations, collectives
from ipfs_accelerate_py.recommend.layout import Layout
from ipfs_accelerate_py.recommend.memory import inference_memory
from ipfs_accelerate_py.recommend.stacks import shape_of
from ipfs_accelerate_py.recommend.step_time import communication_seconds
from ipfs_accelerate_py.recommend.training_memory import training_memory

TRAINED = (("bert", 4, 64), ("llama", 2, 64), ("t5", 2, 64), ("vit", 4, None))
CLASSES = (*TRAINED, ("clip", 4, 77), ("whisper", 1, None), ("wav2vec2", 1, None), ("detr", 1, None), ("clap", 2, 77))
CLASSES = (*CLASSES, ("xclip", 2, 77), ("qwen2", 1, 64))
STEPS, ROUNDS = 5, 3


def ranking() -> None:
    """Each model is left out of the training altogether, then ranked over the targets of each machine that ran it."""
    from scipy.stats import kendalltau

    from ipfs_accelerate_py.predict import Predictor
    from ipfs_accelerate_py.predict.observations import Evidence, read
    from ipfs_accelerate_py.predict.training import train

    evidence = read((), reference_folders())
    taus, regrets, right = [], [], 0
    print("| held-out model | machine | work | targets | Kendall tau | regret of the first | first, and the fastest |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    for model in sorted({each.model for each in evidence.observations}):
        rest = [each for each in evidence.observations if each.model != model]
        predictor = Predictor(train(Evidence(rest, evidence.machines, evidence.probes, evidence.left_out)))
        contests: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for each in evidence.observations:
            if each.model == model and not each.software_adapter:
                work = (each.batch_size, each.sequence_length, each.new_tokens, each.precision, each.mode)
                contests[(each.key.machine, *work)].append(each)
        for (host, *work), cells in contests.items():
            if len(cells) < 2:
                continue
            predicted = [_predict(predictor, each) for each in cells]
            measured = [each.ms["total"] for each in cells]
            tau = kendalltau(predicted, measured).statistic
            chosen, fastest = int(np.argmin(predicted)), int(np.argmin(measured))
            regret = measured[chosen] / measured[fastest] - 1
            taus.append(tau)
            regrets.append(regret)
            right += chosen == fastest
            names = [f"{each.key.platform} {each.key.browser or each.key.engine}" for each in cells]
            shown = " ".join(str(part) for part in work if part is not None)
            print(
                f"| {model} | {host[:8]} | {shown} | {len(cells)} | {tau:.2f} | {regret:.1%} | {names[chosen]}; {names[fastest]} |"
            )
    print(
        f"\n{len(taus)} contests of held-out models: mean tau {statistics.mean(taus):.2f}, median regret {statistics.median(regrets):.1%}, "
        f"mean regret {statistics.mean(regrets):.1%}, first choice right in {right} of {len(taus)}."
    )


def _predict(predictor: Any, each: Any) -> float:
    key = each.key
    found = predictor.predict(
        each.description,
        platform=key.platform,
        engine=key.engine,
        device=key.device,
        browser=key.browser,
        machine=key.machine,
        batch_size=each.batch_size,
        sequence_length=each.sequence_length,
        new_tokens=each.new_tokens,
        precision=each.precision,
        mode=each.mode,
    )
    return found.latency_ms.value


def memory() -> None:
    """The formula of inference memory against the peaks of the shipped launches."""
    from ipfs_accelerate_py.predict.observations import read

    errors: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for each in read((), reference_folders()).observations:
        if each.peak_bytes is None or each.mode != "inference":
            continue
        place = "device" if each.key.platform in ("cuda", "rocm", "mps", "webgpu") else "host"
        predicted = inference_memory(each.counts, each.key.engine, place).total
        if place == "device" and each.key.engine == "torch":
            predicted -= 600_000_000  # the context, which torch's own counter does not see
        errors[(each.key.platform, each.key.engine, each.key.browser or "")].append(predicted / each.peak_bytes - 1)
    print("| platform | engine | browser | cells | median error | mean absolute error | most below | most above |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for key, found in sorted(errors.items()):
        print(
            f"| {' | '.join(key)} | {len(found)} | {statistics.median(found):+.0%} | {statistics.mean(map(abs, found)):.0%} | "
            f"{min(found):+.0%} | {max(found):+.0%} |"
        )


def saved() -> None:
    """Bytes that live after the forward pass, at float32 and under automatic mixed precision, for every class with a size that fits."""
    import torch

    from ipfs_accelerate_py.recommend.peaks import allocated

    print("| class | size | batch | tokens | precision | MB saved | formula | error |")
    print("| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for name, batch, sequence in CLASSES:
        kind = model_classes()[name]
        size = kind.default_size
        config = kind.config(kind.sizes[size].config)
        torch.manual_seed(0)
        model = kind.build(config)
        inputs = {key: torch.from_numpy(value) for key, value in kind.inputs(config, batch, sequence, 0).items()}
        parameters = sum(each.numel() for each in model.parameters())
        shape = shape_of(name, kind.sizes[size].config, parameters, sequence or 0)
        for precision in ("float32", "bfloat16"):
            mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

            def forward(kind: Any = kind, model: Any = model, inputs: Any = inputs, mixed: Any = mixed) -> Any:
                with mixed:
                    return kind.loss(model, inputs)

            forward()
            _, live = allocated(forward)
            widths = activations.AUTOMATIC_MIXED if precision == "bfloat16" else activations.FLOAT32
            formula = activations.model_bytes(shape, batch, widths) * activations.correction(name)
            formula += activations.head_bytes(shape, batch)[0] + (2 * shape.multiplied_parameters if widths.copies else 0)
            print(
                f"| {name} | {size} | {batch} | {sequence or ''} | {precision} | {live / 1e6:.0f} | {formula / 1e6:.0f} | "
                f"{formula / live - 1:+.1%} |",
                flush=True,
            )


def training() -> None:
    """One process with all threads, and two with one thread each, over gloo, that copy (ddp) or shard (fsdp).

    Memory is the peak of torch's allocator beside what lives between steps, and that. The predicted time of two is the time of two such
    processes that train beside each other without a word, measured in the same rounds, and the collectives by alpha-beta.
    """
    network = collectives.probe(2, threads=1)
    print(json.dumps({name: vars(line) for name, line in network.lines.items()}))
    print("| model | batch | run | step ms | predicted | error | peak MB | formula | error |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    from ipfs_accelerate_py.predict import Predictor

    predictor = Predictor.from_stores()
    for name, batch, sequence in TRAINED:
        description = describe(name, model_classes()[name].default_size)
        shape = shape_of(name, description.config, description.parameters, sequence or 0)
        runs = {"single": (1, 2), "alone": (2, 1), "ddp": (2, 1), "fsdp": (2, 1)}
        results: dict[str, list[dict[str, float]]] = defaultdict(list)
        for _ in range(ROUNDS):
            for strategy in random.sample(list(runs), len(runs)):
                results[strategy].append(_train(name, batch, sequence, strategy, *runs[strategy]))
        seconds = {strategy: statistics.median(each["seconds"] for each in found) for strategy, found in results.items()}
        expected = predictor.predict(
            description,
            platform="cpu",
            engine="torch",
            batch_size=batch,
            sequence_length=sequence,
            mode="training",
        )
        for strategy in ("single", "ddp", "fsdp"):
            layout = Layout(strategy=strategy, data=runs[strategy][0], micro_batch=batch, precision="float32")
            formula = training_memory(shape, layout, name, platform="cpu").peak
            peak = max(each["peak"] for each in results[strategy])
            alone = seconds["alone"] + communication_seconds(shape, layout, network)
            predicted = expected.latency_ms.value / 1e3 if strategy == "single" else alone
            print(
                f"| {name} | {batch} | {layout.label} | {1e3 * seconds[strategy]:.0f} | {1e3 * predicted:.0f} | "
                f"{predicted / seconds[strategy] - 1:+.0%} | {peak / 1e6:.0f} | {formula / 1e6:.0f} | {formula / peak - 1:+.1%} |",
                flush=True,
            )


def _train(name: str, batch: int, sequence: int | None, strategy: str, processes: int, threads: int) -> dict[str, float]:
    """Median seconds of a step and peak bytes, of the slowest and the largest process."""
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--worker",
                    f"{folder}/rendezvous",
                    str(rank),
                    str(processes),
                    str(threads),
                    name,
                    str(batch),
                    str(sequence or 0),
                    strategy,
                ],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
            for rank in range(processes)
        ]
        answers = [json.loads(worker.communicate(timeout=240)[0].splitlines()[-1]) for worker in workers]
    return {"seconds": max(each["seconds"] for each in answers), "peak": max(each["peak"] for each in answers)}


def worker(
    rendezvous: str, rank: str, processes: str, threads: str, name: str, batch: str, sequence: str, strategy: str
) -> None:
    """One rank of a run. ``alone`` trains beside the others without exchanging anything but the start of each step."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    from ipfs_accelerate_py.recommend.peaks import allocated

    torch.set_num_threads(int(threads))
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(processes))
    kind = model_classes()[name]
    config = kind.config(kind.sizes[kind.default_size].config)
    torch.manual_seed(0)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = kind.build(config)

        def forward(self, inputs: Any) -> Any:
            return kind.loss(self.model, inputs)

    made: dict[str, Any] = {}

    def start() -> Any:
        loss = Loss()
        if strategy == "fsdp":
            for layers in [each for each in loss.modules() if isinstance(each, torch.nn.ModuleList) and len(each) > 1]:
                if len({type(layer) for layer in layers}) == 1 and any(True for _ in layers[0].children()):
                    for layer in layers:
                        fully_shard(layer)
            fully_shard(loss)
        wrapped = DistributedDataParallel(loss, gradient_as_bucket_view=True) if strategy == "ddp" else loss
        made.update(loss=wrapped, optimizer=torch.optim.AdamW(wrapped.parameters(), lr=1e-5))
        arrays = kind.inputs(config, int(batch), int(sequence) or None, int(rank))
        made["inputs"] = {key: torch.from_numpy(value) for key, value in arrays.items()}
        step()
        step()
        return None

    def step() -> None:
        made["loss"](made["inputs"]).backward()
        made["optimizer"].step()
        made["optimizer"].zero_grad()

    _, between = allocated(start)
    peak, _ = allocated(step)
    times = []
    for _ in range(STEPS):
        dist.barrier()
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(times), "peak": between + peak}))
    dist.destroy_process_group()


def latency(launches: int = 15) -> None:
    """Fresh processes, interleaved: numpy alone, a recommendation for inference, one for training; the time inside and the whole.

    Processor time is what the program itself computes, and hardly depends on what else the machine does.
    """
    programs = {
        "import numpy": "import numpy",
        "inference": "from automated_hardware_selection import select_optimal_hardware as s; s('llama-7b')",
        "training": "from automated_hardware_selection import select_optimal_hardware as s; "
        "s('t5-base', distributed=True, gpu_count=4, max_memory_gb=40, mode='training')",
    }
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(launches):
        for name in random.sample(list(programs), len(programs)):
            began = time.perf_counter()
            inside = (
                "import time; began = time.perf_counter(), time.process_time(); "
                f"{programs[name]}; print(time.perf_counter() - began[0], time.process_time() - began[1])"
            )
            done = subprocess.run([sys.executable, "-c", inside], capture_output=True, text=True, check=True)
            times[f"{name}, whole process"].append(time.perf_counter() - began)
            elapsed, computed = map(float, done.stdout.split())
            times[f"{name}, inside"].append(elapsed)
            times[f"{name}, inside, processor time"].append(computed)
    print("| what | launches | median ms | 95 % interval |\n| --- | ---: | ---: | --- |")
    for name, found in sorted(times.items()):
        interval = median_interval(found)
        shown = f"[{interval.low * 1e3:.0f}, {interval.high * 1e3:.0f}]" if interval else "n too small"
        print(f"| {name} | {len(found)} | {1e3 * statistics.median(found):.0f} | {shown} |")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
        return
    parts = {"ranking": ranking, "memory": memory, "activations": saved, "training": training, "latency": latency}
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in parts:
        arguments.add_argument(f"--{name}", action="store_true")
    chosen = vars(arguments.parse_args())
    facts = machine.fingerprint()
    print(
        f"{facts['cpu_model']}, {facts['physical_cores']} cores, {facts['memory_bytes'] / 1e9:.0f} GB, {facts['os_version']}\n"
    )
    for name, part in parts.items():
        if chosen[name] or not any(chosen.values()):
            print(f"## {name}\n")
            part()
            print()


if __name__ == "__main__":
    main()
