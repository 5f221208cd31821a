"""What a small result costs to read back, plain and woken, in the same page and run.

    python benchmarks/web_readback.py [--browsers firefox chromium] [--launches 6] [--rounds 20] [--model bert] [--size tiny]
        [--minutes 60] [--limit-s 120] [--prepare-only]

``map``: 16 bytes are copied and mapped, both ways in turn, ``--rounds`` times in each launch. ``steady``: the model with onnxruntime-web's
own readback against outputs that stay on the GPU until one woken read of our own, launches interleaved. Woken means that empty command
buffers are submitted while a map is pending. The ratio is woken / plain, below 1 is faster, with the bootstrap interval over launches.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from web_starts import HEADER, Case, Clock, compared, interleaved, run_arguments

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.page_session import Page
from ipfs_accelerate_py.web.switches import Switches


def maps(browser: str, arguments: argparse.Namespace, clock: Clock) -> str:
    """The row of small maps: each launch tries both ways in the same page."""
    plain, woken = [], []
    for _ in range(arguments.launches):
        if clock.over():
            break
        try:
            with Page(find_browser(browser)) as page:
                request = protocol.TryReadback(rounds=arguments.rounds)
                trial = page.ask(request, protocol.Facts, "trial", arguments.limit_s)[0].facts
        except LaunchError as error:
            print(f"{browser} map: {error.error_class}: {error}", file=sys.stderr, flush=True)
            continue
        plain.append([time / 1e6 for time in trial["plain_ns"]])
        woken.append([time / 1e6 for time in trial["woken_ns"]])
    if not plain:
        return f"| {browser} | map of 16 bytes | | | no launch ended well | |"
    a, b = (float(np.median([np.median(launch) for launch in side])) for side in (plain, woken))
    interval = ratio_interval(woken, plain) if len(plain) >= 2 else None
    between = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else " (one launch: no interval)"
    return f"| {browser} | map of 16 bytes | {a:.2f} ms | {b:.2f} ms | {b / a:.3f}{between} | {len(plain)} of {arguments.rounds} each |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", nargs="+", default=["firefox", "chromium"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steady", type=int, default=20)
    parser.add_argument("--model", default="bert")
    parser.add_argument("--size", default="tiny")
    run_arguments(parser)
    parser.set_defaults(launches=6)
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    pairs = [
        tuple(
            Case(f"{browser} {name}", browser, arguments.model, arguments.size, Switches(readback=name))  # type: ignore[arg-type]
            for name in ("plain", "woken")
        )
        for browser in arguments.browsers
    ]
    if arguments.prepare_only:
        interleaved(pairs, "web_readback", arguments.steady, arguments, clock)
        return
    print(f"machine: {machine.fingerprint()}\n")
    print("| browser | what | plain | woken | ratio | launches |\n| --- | --- | --- | --- | --- | --- |")
    for browser in arguments.browsers:
        print(maps(browser, arguments, clock), flush=True)
    print(f"\n{HEADER}")
    interleaved(pairs, "web_readback", arguments.steady, arguments, clock)
    for plain, woken in pairs:
        print(compared(plain, woken, "steady"), flush=True)
    print(f"\nsamples: {arguments.store}")


if __name__ == "__main__":
    main()
