"""How long from nothing to the first result of UnifiedWebPlatform, and what a request costs beyond the page's own time.

    python benchmarks/startup.py [--model all-MiniLM-L6-v2] [--platform wasm] [--browser chromium] [--launches 6] [--keep]

Each launch is a fresh Python process with a fresh browser profile, or with ``--keep`` in the kept one that has the model already; the
model's ONNX files are in the cache (a first run makes them).
Parts by the launch's own clock: Python's imports and the model's configuration, preprocessing, ``load`` (the browser starts, its page
connects and is asked what it has, the model is fetched and compiled; of it ``fetch`` and ``compile`` by the page's clock, what was left to
compile when all had come), the first inference. ``bare`` is the same browser opened on the
same page with nothing in it, in the same launch: the floor. Then 100 requests: total minus the page's own inference time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from ipfs_accelerate_py.measure.statistics import median_interval

PARTS = ("imports", "preprocess", "load", "fetch", "compile", "first", "total", "bare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--platform", default="wasm")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--launches", type=int, default=6)
    parser.add_argument("--keep", action="store_true", help="start in the model's kept profile")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.model, options.platform, options.browser, options.keep)))
        return
    command = [
        sys.executable,
        __file__,
        "--one",
        "--model",
        options.model,
        "--platform",
        options.platform,
        "--browser",
        options.browser,
        *(["--keep"] if options.keep else []),
    ]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)  # makes the ONNX files; not counted
    launches = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(options.launches)]
    from ipfs_accelerate_py.measure import machine  # here: a launch times its own imports

    print(f"machine: {machine.fingerprint()}")
    print(
        f"{options.model} on {options.platform}: {launches[0]['what']}; {options.launches} launches, medians [95 % interval of the median]"
    )
    for part in PARTS:
        show(part, [launch[part] * 1e3 for launch in launches])
    show("total - bare - imports", [(launch["total"] - launch["bare"] - launch["imports"]) * 1e3 for launch in launches])
    show("overhead of a request", [launch["overhead"] * 1e3 for launch in launches])


def show(name: str, values_ms: list[float]) -> None:
    interval = median_interval(values_ms)
    range_ = f"[{interval.low:.1f}, {interval.high:.1f}]" if interval else "[too few launches]"
    print(f"  {name}: {statistics.median(values_ms):.1f} ms {range_}")


def one(model: str, platform_name: str, browser: str, keep: bool) -> dict[str, float | str]:
    """Seconds of each part of one start."""
    start = time.perf_counter()
    from ipfs_accelerate_py.web import protocol
    from ipfs_accelerate_py.web.browsers import find_browser
    from ipfs_accelerate_py.web.page_session import Page
    from ipfs_accelerate_py.web.platform import UnifiedWebPlatform

    configuration = {"use_shader_precompilation": False, "keep_profile": keep}
    with UnifiedWebPlatform(model, "text", platform_name, browser, configuration=configuration) as platform:  # type: ignore[arg-type]
        platform.model.config  # noqa: B018 - imports transformers and torch
        imported = time.perf_counter()
        platform.model.preprocess({"text": "The ferry leaves the harbour at seven."})
        preprocessed = time.perf_counter()
        loading = platform.load()
        loaded = time.perf_counter()
        answer = platform.run_inference({"text": "The ferry leaves the harbour at seven."})
        done = time.perf_counter()
        overheads = []
        for _ in range(100):
            performance = platform.run_inference({"text": "The ferry leaves the harbour at seven."})["performance"]
            overheads.append((performance["total_ms"] - performance["inference_ms"]) / 1e3)
    bare = time.perf_counter()
    with Page(find_browser(browser)) as page:
        page.ask(protocol.Detect(), protocol.Facts, "detection", 60.0)
        opened = time.perf_counter()
    metadata = answer["metadata"]
    return {
        "what": f"{metadata['browser']} {metadata['browser_version']}, {metadata['weights']} weights, {metadata['precision']}, "
        f"{loading['bytes_fetched']:,} bytes of the model sent",
        "imports": imported - start,
        "preprocess": preprocessed - imported,
        "load": loaded - preprocessed,
        "fetch": loading["fetch_ms"] / 1e3,
        "compile": loading["compile_ms"] / 1e3,
        "first": done - loaded,
        "total": done - start,
        "bare": opened - bare,
        "overhead": statistics.median(overheads),
    }


if __name__ == "__main__":
    main()
