"""Whether a page that works for long grows: many inferences, memory of the browser's processes and of the GPU's buffers along the way.

    python benchmarks/leaks.py [--model bert] [--size tiny] [--platform wasm] [--browser chromium] [--inferences 1000]

One browser. Texts of changing length, so that buffers of many sizes come and go. After the first 100 inferences, and then ten times more,
the memory is read: proportional set size of all processes of the browser (Linux), and bytes in GPU buffers by the page's own count. The
last line compares the end with the reading after 100; a growth of more than 2 % exits with status 1.
"""

from __future__ import annotations

import argparse
import sys

from ipfs_accelerate_py.web.platform import UnifiedWebPlatform

SETTLED = 100
MOST_GROWTH = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bert")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--platform", default="wasm")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--inferences", type=int, default=1000)
    options = parser.parse_args()
    if options.inferences < 2 * SETTLED:
        parser.error(f"--inferences must be at least {2 * SETTLED}: the first {SETTLED} only fill caches.")
    configuration = {"size": options.size, "weights": "auto", "max_new_tokens": 4}
    with UnifiedWebPlatform(options.model, "text", options.platform, options.browser, configuration=configuration) as platform:
        readings: list[tuple[int, dict[str, int | None]]] = []
        step = max(1, (options.inferences - SETTLED) // 10)
        for number in range(1, options.inferences + 1):
            platform.run_inference({"text": "word " * (1 + number % 20)})
            if number >= SETTLED and (number - SETTLED) % step == 0:
                memory = platform.get_performance_metrics()["memory"]
                readings.append((number, memory))
                print(number, " ".join(f"{key} {value:,}" for key, value in memory.items() if value is not None), flush=True)
        facts = platform.describe()
    adapter = facts["adapter"] or "no adapter"
    print(
        f"{facts['model_name']} {facts['model_size']}, {facts['platform']}, {facts['browser']} {facts['browser_version']}, {adapter}"
    )
    grown = False
    for key in ("browser_processes_bytes", "gpu_buffer_bytes"):
        first, last = readings[0][1][key], readings[-1][1][key]
        if first and last is not None:
            growth = last / first - 1
            grown |= growth > MOST_GROWTH
            print(f"{key}: {growth:+.1%} from inference {readings[0][0]} to {readings[-1][0]}")
    sys.exit(1 if grown else 0)


if __name__ == "__main__":
    main()
