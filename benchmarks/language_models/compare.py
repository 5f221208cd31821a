"""What both language-model benchmarks do: interleaved launches of both sides, a ratio with its interval, samples kept."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from language_models.peers import PEERS, check_prepared
from language_models.records import our_target, recorded
from language_models.sides import Run, Shape, floor_bytes, low_bit_folder, ours, peer_reference

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.models.registry import workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.spec import Target
from ipfs_accelerate_py.web.language_model_folder import read_folder


def parser(doc: str | None, name: str, prompt: int, new_tokens: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="llama", help="llama or qwen2")
    made.add_argument("--size", default="base", help="tiny, small, base, 1.5b, 7b: as ipfs-accelerate list models")
    made.add_argument("--bits", type=int, nargs="+", default=[4], choices=[2, 3, 4, 8])
    made.add_argument("--group-size", type=int, default=64, choices=[32, 64])
    made.add_argument("--key-bits", type=int, default=16)
    made.add_argument("--value-bits", type=int, default=16)
    made.add_argument("--batch", type=int, default=1, help="sequences at once; more than one have float activations")
    made.add_argument(
        "--activations", choices=["float", "int8", "planned"], help="int8, and float for a batch, where nothing is said"
    )
    made.add_argument("--packed-down", action="store_true", help="gate and up leave int8 activations for down")
    made.add_argument("--prefill-arithmetic", default="float32", choices=["float32", "float16", "int8"])
    made.add_argument("--prefill-tokens", type=int, default=256, help="of a chunk of a prompt")
    made.add_argument("--prompt", type=int, default=prompt, help="tokens")
    made.add_argument("--new-tokens", type=int, default=new_tokens)
    made.add_argument("--generations", type=int, default=5, help="timed ones of a launch")
    made.add_argument("--launches", type=int, default=6, help="of each side")
    made.add_argument("--browser", default="chromium")
    made.add_argument(
        "--peers", nargs="*", default=["onnxruntime-web"], choices=list(PEERS), help="none after the option: ours alone"
    )
    made.add_argument("--prepare-only", type=Path, metavar="DIR", help="make every side's model in this folder, and end")
    made.add_argument("--prepared", type=Path, metavar="DIR", help="take the models that --prepare-only made")
    made.add_argument("--limit-s", type=float, default=240, help="of each wait for a browser")
    made.add_argument("--store", type=Path, help="a DuckDB store that gets every launch when it ends")
    made.add_argument(
        "--allow-software", action="store_true", help="run on a software adapter; nothing about speed follows from it"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--samples", type=Path, default=Path(tempfile.gettempdir()) / f"{name}.jsonl", help="every launch, a line each"
    )
    return made


def run(arguments: argparse.Namespace, name: str, pick: Callable[[Run], tuple[float, ...]], what: str, tokens: int) -> None:
    """Measure and print. ``pick`` takes the seconds of a launch that are compared; ``tokens`` turns them into tokens a second."""
    try:
        _run(arguments, name, pick, what, tokens)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _run(arguments: argparse.Namespace, name: str, pick: Callable[[Run], tuple[float, ...]], what: str, tokens: int) -> None:
    if arguments.new_tokens < 2:
        raise UserError("--new-tokens must be at least 2: the time of a token is the distance between two.")
    arguments.activations = arguments.activations or ("int8" if arguments.batch == 1 else "float")
    reference = peer_reference(arguments.model, arguments.size)
    shape = Shape(arguments.prompt, arguments.new_tokens, arguments.generations, arguments.batch)
    root = arguments.prepare_only or arguments.prepared or cache_folder() / "language-model-benchmarks"
    if arguments.prepared:
        check_prepared(root, arguments.peers, reference)
    folders = {f"{bits} bits": low_bit_folder(reference, bits, arguments.group_size, root) for bits in arguments.bits}
    if arguments.prepare_only:
        for peer in arguments.peers:
            print(f"{peer}: {PEERS[peer].ready(reference, shape, root)}")
        print(f"ours: {', '.join(map(str, folders.values()))}")
        return
    sides = [*folders, *arguments.peers]
    print(f"machine: {machine.fingerprint()}")
    times: dict[str, list[tuple[float, ...]]] = {side: [] for side in sides}
    copies: list[float] = []
    order = random.Random(arguments.seed)
    software = False
    base = workload(reference, batch_size=shape.batch, sequence_length=shape.prompt, new_tokens=shape.new_tokens)
    with recorded(arguments.store, name, {"sides": sides}, arguments.seed) as records:
        for index in range(arguments.launches):
            for side in order.sample(sides, len(sides)):
                if side in PEERS:
                    work, target = PEERS[side].work(reference, shape), Target("webgpu", side, browser=arguments.browser)
                else:
                    work = replace(base, precision=f"int{side.split()[0]}")
                    target = our_target(arguments.browser, **_options(arguments))
                try:
                    if side in PEERS:
                        found = PEERS[side].run(arguments.browser, reference, shape, root, arguments.limit_s)
                    else:
                        found = ours(arguments.browser, folders[side], shape, arguments.limit_s, **_options(arguments))
                        copies.append(found.facts["copy_bytes_per_second"])
                except LaunchError as error:
                    print(f"{side} {index}: {error.error_class}: {error}", file=sys.stderr)
                    if records:
                        records.add(work, target, index, shape, error)
                    continue
                software = _software(found, arguments.allow_software) or software
                keep(arguments.samples, arguments, side, index, found)
                if records:
                    records.add(work, target, index, shape, found)
                times[side].append(pick(found))
                speed = shape.batch * tokens / np.median(pick(found))
                print(f"{side} {index}: {speed:.1f} tokens/s", file=sys.stderr, flush=True)
    mark = " [SOFTWARE ADAPTER: says nothing about speed]" if software else ""
    batch = "" if shape.batch == 1 else f", {shape.batch} sequences"
    title = f"{arguments.model} {arguments.size}, {shape.prompt} + {shape.new_tokens} tokens{batch}, {arguments.browser}"
    for side in sides:
        if not times[side]:
            print(f"{title}, {side}: no launch ended well")
            continue
        median = float(np.median([np.median(launch) for launch in times[side]]))
        line = f"{title}, {side}: {shape.batch * tokens / median:.1f} {what} tokens/s over {len(times[side])} launches"
        if what == "decoded" and side in folders and copies:
            size = floor_bytes(read_folder(folders[side]), shape, arguments.key_bits, arguments.value_bits)
            copied = float(np.median(copies))
            line += f"; a step reads {size / 1e6:.1f} MB; copies reach {copied / 1e9:.0f} GB/s on this device, kernels may read faster"
        print(line + mark)
    for peer in arguments.peers:
        for side in folders:
            if min(len(times[side]), len(times[peer])) >= 2:
                interval = ratio_interval(times[peer], times[side])
                ratio = np.median([np.median(t) for t in times[peer]]) / np.median([np.median(t) for t in times[side]])
                print(f"{peer} (int4) / ours ({side}) = {ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}]{mark}")
    print(f"samples: {arguments.samples}" + (f", {arguments.store}" if arguments.store else ""))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("key_bits", "value_bits", "activations", "prefill_arithmetic", "prefill_tokens", "packed_down")
    return {name: getattr(arguments, name) for name in names}


def _software(found: Run, allowed: bool) -> bool:
    """Whether the launch ran on a software adapter; ends the benchmark where that was not allowed."""
    software = (found.facts.get("device") or {}).get("software_adapter")
    if software and not allowed:
        raise UserError(
            "The adapter is a software one, whose speed says nothing about a GPU: add --allow-software to run all the same."
        )
    return bool(software)


def keep(path: Path, arguments: argparse.Namespace, side: str, index: int, found: Run) -> None:
    asked: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    line = {"side": side, "launch": index, "asked": asked, "first_token_s": found.first_token_s, "token_s": found.token_s}
    with path.open("a") as stream:
        stream.write(json.dumps(line | {"machine": machine.fingerprint(), "facts": found.facts}, default=str) + "\n")
