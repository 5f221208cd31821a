"""How good the recommendation is: ranking, memory and how fast it answers. Each part prints its own table.

    python benchmarks/selection.py --ranking       # held-out models of the reference data: Kendall's tau, regret of the first choice
    python benchmarks/selection.py --memory        # inference memory by formula against the reference data's peaks
    python benchmarks/selection.py --activations   # what a forward pass saves, by formula against torch's allocator, every class
    python benchmarks/selection.py --latency       # how long answers take in fresh processes

Run it on an idle machine: the last one is a timing.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import numpy as np

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.paths import reference_folders
from ipfs_accelerate_py.recommend import activations
from ipfs_accelerate_py.recommend.memory import inference_memory
from ipfs_accelerate_py.recommend.stacks import shape_of

TRAINED = (("bert", 4, 64), ("llama", 2, 64), ("t5", 2, 64), ("vit", 4, None))
CLASSES = (*TRAINED, ("clip", 4, 77), ("whisper", 1, None), ("wav2vec2", 1, None), ("detr", 1, None), ("clap", 2, 77))
CLASSES = (*CLASSES, ("xclip", 2, 77), ("qwen2", 1, 64))


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


def latency(launches: int = 15) -> None:
    """Fresh processes, interleaved: an empty program, a prediction, a recommendation for inference, one for training; the time inside and
    the whole. Bytecode is there before the first launch that counts, as it is where the package is installed.

    Processor time is what the program itself computes, and hardly depends on what else the machine does.
    """
    programs = {
        "nothing": "pass",
        "import numpy": "import numpy",
        "predict": "from ipfs_accelerate_py.graph import describe; from ipfs_accelerate_py.predict import Predictor; "
        "Predictor.from_stores().predict(describe('bert-base-uncased'), platform='cpu', engine='torch')",
        "recommend, inference": "from automated_hardware_selection import select_optimal_hardware as s; s('llama-7b')",
        "recommend, training": "from automated_hardware_selection import select_optimal_hardware as s; "
        "s('t5-base', distributed=True, gpu_count=4, max_memory_gb=40, mode='training')",
    }
    times: dict[str, list[float]] = defaultdict(list)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for program in programs.values():
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    for _ in range(launches):
        for name in random.sample(list(programs), len(programs)):
            began = time.perf_counter()
            inside = (
                "import time; began = time.perf_counter(), time.process_time(); "
                f"{programs[name]}; print(time.perf_counter() - began[0], time.process_time() - began[1])"
            )
            done = subprocess.run([sys.executable, "-c", inside], capture_output=True, text=True, check=True, env=environment)
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
    parts = {"ranking": ranking, "memory": memory, "activations": saved, "latency": latency}
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
