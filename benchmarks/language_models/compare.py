"""What both language-model benchmarks do: interleaved launches of both sides, a ratio with its interval, samples kept."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from language_models.sides import PEER_PRECISIONS, Run, floor_bytes, low_bit_folder, ours, peer_reference, theirs

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.web.language_model_folder import read_folder


def parser(doc: str | None, name: str, prompt: int, new_tokens: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="llama", help="llama or qwen2")
    made.add_argument("--size", default="base", help="tiny, small, base, 1.5b, 7b: as ipfs-accelerate list models")
    made.add_argument("--bits", type=int, nargs="+", default=[4], choices=[2, 3, 4, 8])
    made.add_argument("--group-size", type=int, default=64, choices=[32, 64])
    made.add_argument("--key-bits", type=int, default=16)
    made.add_argument("--value-bits", type=int, default=16)
    made.add_argument("--activations", default="int8", choices=["float", "int8"])
    made.add_argument("--prefill-arithmetic", default="float32", choices=["float32", "float16", "int8"])
    made.add_argument("--prefill-tokens", type=int, default=256, help="of a chunk of a prompt")
    made.add_argument("--prompt", type=int, default=prompt, help="tokens")
    made.add_argument("--new-tokens", type=int, default=new_tokens)
    made.add_argument("--generations", type=int, default=5, help="timed ones of a launch")
    made.add_argument("--launches", type=int, default=6, help="of each side")
    made.add_argument("--browser", default="chromium")
    made.add_argument("--no-peer", action="store_true", help="our engine alone")
    made.add_argument(
        "--allow-software", action="store_true", help="run on a software adapter; nothing about speed follows from it"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--samples", type=Path, default=Path(tempfile.gettempdir()) / f"{name}.jsonl", help="every launch, a line each"
    )
    return made


def run(arguments: argparse.Namespace, pick: Callable[[Run], tuple[float, ...]], what: str, tokens: int) -> None:
    """Measure and print. ``pick`` takes the seconds of a launch that are compared; ``tokens`` turns them into tokens a second."""
    if arguments.new_tokens < 2:
        sys.exit("--new-tokens must be at least 2: the time of a token is the distance between two.")
    reference = peer_reference(arguments.model, arguments.size)
    print(f"machine: {machine.fingerprint()}")
    sides: list[str] = [f"{bits} bits" for bits in arguments.bits]
    peer = PEER_PRECISIONS[4]
    if not arguments.no_peer:
        sides.append("onnxruntime-web")
    folders = {f"{bits} bits": low_bit_folder(reference, bits, arguments.group_size) for bits in arguments.bits}
    times: dict[str, list[tuple[float, ...]]] = {side: [] for side in sides}
    copies: list[float] = []
    order = random.Random(arguments.seed)
    software = False
    for index in range(arguments.launches):
        for side in order.sample(sides, len(sides)):
            shape = (arguments.prompt, arguments.new_tokens, arguments.generations)
            try:
                if side == "onnxruntime-web":
                    found = theirs(arguments.browser, reference, peer, *shape, False)
                else:
                    options = {
                        "key_bits": arguments.key_bits,
                        "value_bits": arguments.value_bits,
                        "activations": arguments.activations,
                        "prefill_arithmetic": arguments.prefill_arithmetic,
                        "prefill_tokens": arguments.prefill_tokens,
                    }
                    found = ours(arguments.browser, folders[side], *shape, **options)
                    copies.append(found.facts["copy_bytes_per_second"])
            except LaunchError as error:
                print(f"{side} {index}: {error.error_class}: {error}", file=sys.stderr)
                continue
            software = _software(found, arguments.allow_software) or software
            keep(arguments.samples, arguments, side, index, found)
            times[side].append(pick(found))
            print(f"{side} {index}: {tokens / np.median(pick(found)):.1f} tokens/s", file=sys.stderr)
    mark = " [SOFTWARE ADAPTER: says nothing about speed]" if software else ""
    name = f"{arguments.model} {arguments.size}, {arguments.prompt} + {arguments.new_tokens} tokens, {arguments.browser}"
    for side in sides:
        if not times[side]:
            print(f"{name}, {side}: no launch ended well")
            continue
        median = float(np.median([np.median(launch) for launch in times[side]]))
        line = f"{name}, {side}: {tokens / median:.1f} {what} tokens/s over {len(times[side])} launches"
        if what == "decoded" and side in folders and copies:
            size = floor_bytes(read_folder(folders[side]), *shape[:2], arguments.key_bits, arguments.value_bits)
            copied = float(np.median(copies))
            line += f"; a token reads {size / 1e6:.1f} MB; copies reach {copied / 1e9:.0f} GB/s on this device, kernels may read faster"
        print(line + mark)
    for side in folders:
        if min(len(times[side]), len(times.get("onnxruntime-web", []))) >= 2:
            interval = ratio_interval(times["onnxruntime-web"], times[side])
            ratio = np.median([np.median(t) for t in times["onnxruntime-web"]]) / np.median([np.median(t) for t in times[side]])
            print(f"onnxruntime-web ({peer}) / ours ({side}) = {ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}]{mark}")
    print(f"samples: {arguments.samples}")


def _software(found: Run, allowed: bool) -> bool:
    """Whether the launch ran on a software adapter; ends the benchmark where that was not allowed."""
    software = (found.facts.get("device") or {}).get("software_adapter")
    if software and not allowed:
        sys.exit(
            "The adapter is a software one, whose speed says nothing about a GPU: add --allow-software to run all the same."
        )
    return bool(software)


def keep(path: Path, arguments: argparse.Namespace, side: str, index: int, found: Run) -> None:
    asked: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    line = {"side": side, "launch": index, "asked": asked, "first_token_s": found.first_token_s, "token_s": found.token_s}
    with path.open("a") as stream:
        stream.write(json.dumps(line | {"machine": machine.fingerprint(), "facts": found.facts}, default=str) + "\n")
