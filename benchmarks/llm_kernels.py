"""Where the time of a decoding step goes: each kernel by the GPU's own clock, and shapes of the matrix-vector products in comparison.

    python benchmarks/llm_kernels.py --model qwen2 --size 1.5b --bits 4 [--activations int8] [--tune]

One launch. Every product is timed over all layers, whose matrices no cache holds together, in a pass of its own, beside what
copies reach on the same device (which kernels may exceed). With ``--tune`` every shape is tried, and what beats the usual one is
remembered for this browser version and adapter. Timestamps say nothing of what a dispatch costs outside the GPU: llm_decode.py does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from language_models.sides import low_bit_folder, peer_reference

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.web.language_model import LanguageModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama", help="llama or qwen2")
    parser.add_argument("--size", default="base", help="tiny, small, base, 1.5b, 7b")
    parser.add_argument("--bits", type=int, nargs="+", default=[4], choices=[2, 3, 4, 8])
    parser.add_argument("--group-size", type=int, default=64, choices=[32, 64])
    parser.add_argument("--activations", nargs="+", default=["float"], choices=["float", "int8", "planned"])
    parser.add_argument("--packed-down", action="store_true", help="gate and up leave int8 activations for down")
    parser.add_argument("--batch", type=int, default=1, help="sequences at once, with their own kernels")
    parser.add_argument("--length", type=int, default=256, help="tokens in the cache")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--tune", action="store_true", help="try every shape and remember the fastest")
    parser.add_argument("--budget-s", type=float, default=20, help="of the search")
    parser.add_argument("--json", type=Path, help="all rounds of all shapes, a line a launch")
    parser.add_argument("--allow-software", action="store_true")
    chosen = parser.parse_args()
    print(f"machine: {machine.fingerprint()}")
    for bits in chosen.bits:
        folder = low_bit_folder(peer_reference(chosen.model, chosen.size), bits, chosen.group_size)
        for activations in chosen.activations:
            with LanguageModel(
                chosen.browser,
                folder,
                context_length=chosen.length,
                activations=activations,
                packed_down=chosen.packed_down,
                batch=chosen.batch,
                tuned={},
            ) as model:
                device = model.load()["device"]
                if device.get("software_adapter") and not chosen.allow_software:
                    sys.exit(
                        "A software adapter's times say nothing about a GPU: add --allow-software to see them all the same."
                    )
                bandwidth = model.copy_bytes_per_second()
                found = model.tune(chosen.budget_s) if chosen.tune else model.profile(chosen.length)
            mark = " [SOFTWARE ADAPTER]" if device.get("software_adapter") else ""
            print(
                f"\n{chosen.model} {chosen.size}, {bits} bits, {activations} activations, copies {bandwidth / 1e9:.0f} GB/s{mark}"
            )
            show(found, bandwidth)
            if chosen.json:
                with chosen.json.open("a") as stream:
                    asked = {
                        "model": chosen.model,
                        "size": chosen.size,
                        "bits": bits,
                        "activations": activations,
                        "packed_down": chosen.packed_down,
                        "batch": chosen.batch,
                        "browser": chosen.browser,
                    }
                    stream.write(json.dumps({"asked": asked, "bandwidth": bandwidth, "device": device, **found}) + "\n")


def show(found: dict, bandwidth: float) -> None:
    for stage in found["stages"]:
        ns = median(stage["ns"])
        print(
            f"  {stage['label']:28} {stage['dispatches']:4} dispatches {ns / 1e3:9.1f} us, {ns / 1e3 / stage['dispatches']:7.2f} each"
        )
    for product in (each for each in found["products"] if each["shape"] is None):
        tried = [each for each in found["products"] if each["key"] == product["key"] and each["label"] == product["label"]]
        best = min(tried, key=lambda each: median(each["ns"]))
        for kind, one in (("usual", product), *((("best", best),) if best is not product else ())):
            ns = median(one["ns"])
            share = one["bytes"] / bandwidth * 1e9 / ns
            shape = "" if one["shape"] is None else " workgroup {workgroup}, lanes {lanes}, rows {rows}".format(**one["shape"])
            count = one["dispatches"]
            print(
                f"  {one['label']:22} {kind:5} {count:4} dispatches {ns / 1e3:9.1f} us, {ns / 1e3 / count:7.2f} each, "
                f"{one['bytes'] / ns:6.0f} GB/s, {share:4.0%} of copies{shape}"
            )
    print(f"  a whole step, sampler left out, is {1e9 / median(found['stages'][0]['ns']):.0f} tokens/s")
    for problem in found["refused"][:5]:
        print(f"  refused: {problem}")
    if found["not_tried"]:
        print(f"  not tried for want of time: {found['not_tried']}")


if __name__ == "__main__":
    main()
