"""Each web optimisation on and off in the same run: precompilation, audio on the GPU, Firefox's readback, parallel loading, all together.

    python benchmarks/web_optimizations.py [--parts precompilation audio firefox loading all] [--models bert] [--size tiny]
        [--browsers chromium firefox] [--launches 5] [--seconds 5] [--batch 1] [--megabits 200] [--round-trip-ms 20]
        [--minutes 60] [--limit-s 120] [--prepare-only]

A launch is a fresh profile (or, for ``kept``, one that an untimed start has filled). Off and on of all parts are interleaved in a seeded
random order, so that a run which ``--minutes`` ends has some launches of each. ``--prepare-only`` makes the models' files before that.
Times are the page's own: ``first inference``; ``ready`` and ``first result`` count from the navigation to the page. The ratio is on / off,
below 1 is faster, of medians over launches, with the bootstrap interval over launches. Every launch goes into ``--store``, with its
switches and what they did; by default into the one by which UnifiedWebPlatform decides what is on. The adapter is printed: on a
software adapter the ratios say nothing about a GPU.
"""

from __future__ import annotations

import argparse

from web_starts import HEADER, Case, Clock, compared, interleaved, run_arguments

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.web.shaped_link import shaped_link
from ipfs_accelerate_py.web.switches import Switches

OFF = Switches()
ALL = Switches(precompilation=True, gpu_audio=True, parallel_loading=True, readback="auto")
DEFAULT_MODELS = {
    "precompilation": ["bert", "vit", "whisper", "clap", "llama"],
    "audio": ["whisper", "wav2vec2", "clap"],
    "firefox": ["whisper", "wav2vec2", "clap"],
    "loading": ["clip", "llava", "llava_next", "xclip", "clap"],
    "all": ["clap"],
}
SHOWN = {
    "precompilation": ("first_inference", "first_result"),
    "audio": ("steady", "first_result"),
    "firefox": ("steady", "first_result"),
    "loading": ("ready",),
    "all": ("first_result", "steady"),
}


def pairs(part: str, model: str, browser: str, arguments: argparse.Namespace) -> list[tuple[Case, Case]]:
    """Off and on of one part."""
    seconds = arguments.seconds if model in DEFAULT_MODELS["audio"] else 0.0

    def case(name: str, switches: Switches, **more: object) -> Case:
        return Case(f"{part} {model} {browser} {name}", browser, model, arguments.size, switches, arguments.batch, **more)  # type: ignore[arg-type]

    if part == "precompilation":
        on = [case("recorded", Switches(precompilation=True), record=True)]
        if arguments.kept:
            on.append(case("kept", Switches(keep=True)))
        return [(case("off", OFF), each) for each in on]
    if part == "audio":
        return [(case("off", OFF, recordings_s=seconds), case("on", Switches(gpu_audio=True), recordings_s=seconds))]
    if part == "firefox":
        tuned = Switches(gpu_audio=True, readback="woken")
        return [(case("untuned", OFF, recordings_s=seconds), case("tuned", tuned, recordings_s=seconds))]
    if part == "loading":
        found = []
        for name in arguments.links:
            link = {"loopback": None, "shaped": lambda: shaped_link(arguments.megabits, arguments.round_trip_ms)}[name]
            found.append(
                (
                    case(f"off {name}", OFF, link=link, link_name=name),
                    case(f"on {name}", Switches(parallel_loading=True), link=link, link_name=name),
                )
            )
        return found
    return [(case("off", OFF, recordings_s=seconds), case("on", ALL, recordings_s=seconds, record=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(DEFAULT_MODELS), choices=list(DEFAULT_MODELS))
    parser.add_argument("--models", nargs="+", default=None, help="those of the part by default")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--browsers", nargs="+", default=["chromium", "firefox"])
    parser.add_argument("--steady", type=int, default=5, help="iterations after the first of each launch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each recording")
    parser.add_argument("--batch", type=int, default=1, help="recordings at once")
    parser.add_argument("--links", nargs="+", default=["loopback", "shaped"], choices=["loopback", "shaped"])
    parser.add_argument("--megabits", type=float, default=200.0, help="a second, of the shaped link")
    parser.add_argument("--round-trip-ms", type=float, default=20.0)
    parser.add_argument("--kept", action="store_true", help="also a kept profile against a fresh one")
    run_arguments(parser)
    arguments = parser.parse_args()

    print(f"machine: {machine.fingerprint()}\n")
    made = [
        (part, pair)
        for part in arguments.parts
        for model in arguments.models or DEFAULT_MODELS[part]
        for browser in arguments.browsers
        if part != "firefox" or browser == "firefox"
        for pair in pairs(part, model, browser, arguments)
    ]
    benchmark = f"web_optimizations {' '.join(arguments.parts)}"
    interleaved([pair for _, pair in made], benchmark, arguments.steady, arguments, Clock(arguments.minutes))
    if arguments.prepare_only:
        return
    print(HEADER)
    for part, (off, on) in made:
        for what in SHOWN[part]:
            print(compared(off, on, what), flush=True)
    print(f"\nsamples: {arguments.store}")


if __name__ == "__main__":
    main()
