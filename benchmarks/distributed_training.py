"""Data-parallel and sharded training as measured, beside what ``recommend`` reckons for it: time of a step, peak memory, collectives.

    python benchmarks/distributed_training.py                                       # every NVIDIA GPU here, over NCCL
    python benchmarks/distributed_training.py --backend gloo --processes 2 --size tiny --precisions float32    # processors alone
    python benchmarks/distributed_training.py --output distributed.json             # the table's rows, the probe and the machine

Each run is the script that ``recommend --configuration torchrun`` prints, its model spread as it says, in one process a device under
torchrun. ``alone`` is the same work in each process at once without a word between them. The predicted time of DDP and FSDP is that of
``alone`` and the collectives by alpha-beta as probed here just before; the formula of memory knows no measurement. Runs are interleaved
in random order. Peak memory is that of torch's allocator, and is the largest of all ranks. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from ipfs_accelerate_py.graph import ModelDescription, describe
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.predict.prediction import Interval
from ipfs_accelerate_py.recommend import collectives
from ipfs_accelerate_py.recommend.configuration import configuration
from ipfs_accelerate_py.recommend.layout import Layout
from ipfs_accelerate_py.recommend.stacks import shape_of
from ipfs_accelerate_py.recommend.step_time import step_seconds
from ipfs_accelerate_py.recommend.training_memory import CONTEXT_BYTES, training_memory

# Items of a device and tokens, on processors and on GPUs.
WORK = {
    "gloo": {"bert": (4, 64), "llama": (2, 64), "t5": (2, 64), "vit": (4, None)},
    "nccl": {"bert": (32, 128), "llama": (4, 1024), "t5": (8, 256), "vit": (32, None)},
}
STRATEGIES = {"alone": "single", "ddp": "ddp", "fsdp": "fsdp"}
WARM_UP, STEPS = 2, 5
LIMIT_S = 900


def layout_of(run: dict[str, Any], processes: int) -> Layout:
    data = 1 if run["strategy"] == "alone" else processes
    return Layout(strategy=STRATEGIES[run["strategy"]], data=data, micro_batch=run["batch_size"], precision=run["precision"])


def measured(arguments: argparse.Namespace, runs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Every run of every round, with the ranks' seconds of each step and peak bytes; all in one start of torchrun."""
    (folder / "plan.json").write_text(json.dumps({"backend": arguments.backend, "runs": runs}), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.processes)]
    done = subprocess.run(
        [*command, __file__, "--worker", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)},
        stdout=sys.stderr,
        timeout=LIMIT_S,
    )
    if done.returncode:
        sys.exit(f"torchrun ended with status {done.returncode}: what it says is above.")
    return json.loads((folder / "measured.json").read_text(encoding="utf-8"))


def worker(folder: Path) -> None:
    """One rank: every run of the plan in turn, its model built on the device and given up before the next."""
    import torch
    import torch.distributed as dist

    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    cuda = plan["backend"] == "nccl"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32, as in every other measurement of the project
        torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group(plan["backend"], device_id=device if cuda else None)
    answers = []
    for run in plan["runs"]:
        own = _run(run, folder, device)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, own)
        slowest = [max(step) for step in zip(*(each["seconds"] for each in everyone), strict=True)]
        contexts = [each["context_bytes"] for each in everyone]
        answers.append(
            run
            | {
                "step_seconds": slowest,
                "peak_bytes": max(each["peak_bytes"] for each in everyone),
                "context_bytes": max(contexts) if cuda else None,
            }
        )
        if dist.get_rank() == 0:
            print(f"{run['model']} {run['precision']} {run['strategy']}: {1e3 * statistics.median(slowest):.1f} ms", flush=True)
    if dist.get_rank() == 0:
        (folder / "measured.json").write_text(json.dumps(answers), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _run(run: dict[str, Any], folder: Path, device: Any) -> dict[str, Any]:
    """Seconds of each timed step on this rank, its peak bytes, and what the GPU holds beside torch's tensors."""
    import torch
    import torch.distributed as dist

    cuda = device.type == "cuda"
    script = _imported(folder / run["script"])
    made: dict[str, Any] = {}

    def step() -> None:
        with made["autocast"]:
            loss = made["loss"](made["inputs"])
        loss.backward()
        made["optimizer"].step()
        made["optimizer"].zero_grad()

    def start() -> None:
        torch.manual_seed(0)  # the same weights on every rank
        config = script.KIND.config(script.CONFIG)
        with device:
            model = script.KIND.build(config).train().to(torch.float32)
        made["loss"] = script.spread(model, device)
        made["optimizer"] = torch.optim.AdamW(made["loss"].parameters(), lr=1e-5, fused=cuda)
        casts = run["strategy"] != "fsdp" and run["precision"] != "float32"
        made["autocast"] = torch.autocast(device.type, script.DTYPE, enabled=casts)
        made["inputs"] = {name: each.to(device) for name, each in next(script.batches(config, dist.get_rank())).items()}
        for _ in range(WARM_UP):
            step()

    if cuda:
        start()
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
    else:
        from ipfs_accelerate_py.recommend.peaks import allocated

        _, between = allocated(start)
        peak, context = between + allocated(step)[0], 0
    seconds = []
    for _ in range(STEPS):
        dist.barrier()
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "peak_bytes": peak, "context_bytes": context}


def _imported(file: Path) -> Any:
    found = importlib.util.spec_from_file_location(file.stem, file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def planned(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every run of all rounds, each round in an order of its own, with the scripts that they import."""
    once = []
    for name in arguments.models:
        batch, sequence = WORK[arguments.backend][name]
        description = describe(name, arguments.size)
        for precision in arguments.precisions:
            for strategy in STRATEGIES:
                run = {
                    "model": name,
                    "size": arguments.size,
                    "strategy": strategy,
                    "precision": precision,
                    "batch_size": arguments.batch_size or batch,
                    "sequence_length": sequence,
                    "script": f"train_{name}_{precision}_{strategy}.py",
                }
                text = configuration(layout_of(run, arguments.processes), description, sequence, "torchrun")
                (folder / run["script"]).write_text(text, encoding="utf-8")
                once.append(run)
    return [run for _ in range(arguments.rounds) for run in random.sample(once, len(once))]


def compared(answers: list[dict[str, Any]], network: collectives.Communication) -> list[dict[str, Any]]:
    """One row a run: medians over the rounds, and what the formulas of ``recommend`` say."""
    rounds: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        rounds[(answer["model"], answer["precision"], answer["strategy"])].append(answer)
    seconds = {
        key: statistics.median(statistics.median(each["step_seconds"]) for each in found) for key, found in rounds.items()
    }
    platform = "cuda" if network.backend == "nccl" else "cpu"
    rows = []
    for (name, precision, strategy), found in sorted(rounds.items()):
        run = found[0]
        description: ModelDescription = describe(name, run["size"])
        shape = shape_of(name, description.config, description.parameters, run["sequence_length"] or 0)
        layout = layout_of(run, network.processes)
        # torch's counter does not see the context.
        formula = training_memory(shape, layout, name, platform=platform).peak - CONTEXT_BYTES[platform]
        alone = seconds[(name, precision, "alone")]
        time_of = step_seconds(shape, layout, Interval(alone, alone, alone), network)
        row = {key: run[key] for key in ("model", "size", "strategy", "precision", "batch_size", "sequence_length")}
        row |= {
            "processes": network.processes,
            "rounds": len(found),
            "measured_step_ms": 1e3 * seconds[(name, precision, strategy)],
            "measured_step_ms_of_rounds": [1e3 * statistics.median(each["step_seconds"]) for each in found],
            "predicted_step_ms": None if strategy == "alone" else vars(time_of.total.scaled(1e3)),
            "measured_peak_bytes": max(each["peak_bytes"] for each in found),
            "predicted_peak_bytes": round(formula),
            "measured_context_bytes": run["context_bytes"],
        }
        rows.append(row)
    return rows


def report(rows: list[dict[str, Any]], network: collectives.Communication) -> None:
    """The two tables."""
    share = (network.processes - 1) / network.processes
    traffic = {"all_reduce": 2 * share, "all_gather": share, "reduce_scatter": share}
    print(f"{network.processes} x {network.device}, {network.backend}\n")
    print("| collective | alpha µs | GB/s of the tensor | GB/s through each link | largest error of the fit |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, line in network.lines.items():
        rate = line.bytes_per_s / 1e9
        print(f"| {name} | {1e6 * line.alpha_s:.0f} | {rate:.4g} | {traffic[name] * rate:.4g} | {line.worst:.0%} |")
    print("\n| model | batch | tokens | precision | run | step ms | predicted | error | peak GB | formula | error |")
    print("| --- | ---: | ---: | --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        time_of, shown, error = row["predicted_step_ms"], "", ""
        if time_of is not None:
            shown = f"{time_of['value']:.4g} [{time_of['low']:.4g}, {time_of['high']:.4g}]"
            error = f"{time_of['value'] / row['measured_step_ms'] - 1:+.0%}"
        peak, formula = row["measured_peak_bytes"], row["predicted_peak_bytes"]
        print(
            f"| {row['model']} {row['size']} | {row['batch_size']} | {row['sequence_length'] or ''} | {row['precision']} | "
            f"{row['strategy']} | {row['measured_step_ms']:.4g} | {shown} | {error} | {peak / 1e9:.3f} | {formula / 1e9:.3f} | "
            f"{formula / peak - 1:+.1%} |"
        )
    contexts = [row["measured_context_bytes"] for row in rows if row["measured_context_bytes"] is not None]
    if contexts:
        print(
            f"\nA GPU holds up to {max(contexts) / 1e9:.2f} GB beside torch's allocator (assumed: {CONTEXT_BYTES['cuda'] / 1e9:.2f} GB)."
        )


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=collectives.BACKENDS, help="default: nccl where torch sees NVIDIA GPUs, else gloo")
    parser.add_argument("--processes", type=int, help="default: one a GPU; two over gloo")
    parser.add_argument("--threads", type=int, help="of each process; default: an equal share of the processors")
    parser.add_argument("--models", default="bert,llama", type=lambda text: text.split(","))
    parser.add_argument("--size", default=None, help="default: base on GPUs, small on processors")
    parser.add_argument("--precisions", default="float32,bfloat16", type=lambda text: text.split(","))
    parser.add_argument("--batch-size", type=int, help="items of each process; default: one that suits the device")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="a JSON file for the rows")
    arguments = parser.parse_args()
    if arguments.backend is None:
        import torch

        arguments.backend = "nccl" if torch.cuda.device_count() else "gloo"
    if arguments.processes is None:
        import torch

        arguments.processes = torch.cuda.device_count() if arguments.backend == "nccl" else 2
    if arguments.processes < 2:
        parser.error(f"training is distributed over 2 processes or more, not {arguments.processes}.")
    if unknown := [name for name in arguments.models if name not in WORK[arguments.backend]]:
        parser.error(f"--models takes {', '.join(WORK[arguments.backend])}, not {', '.join(unknown)}.")
    arguments.size = arguments.size or ("base" if arguments.backend == "nccl" else "small")
    arguments.threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.processes)
    network = collectives.probe(arguments.processes, arguments.backend, threads=arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        runs = planned(arguments, Path(folder))
        rows = compared(measured(arguments, runs, Path(folder)), network)
    report(rows, network)
    if arguments.output:
        value = {"machine": machine.fingerprint(), "collectives": network.to_dict(), "rows": rows}
        arguments.output.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
