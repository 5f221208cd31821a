"""What each browser offers, as its launches and live probes told, and the measured effect of using it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..measure.statistics import geometric_mean
from ..platforms.base import Unavailable
from ..web.browsers import KNOWN
from .matrix import Matrix
from .rating import Launch, device_class
from .wording import count

NOT_ASKED = "not asked"
NOT_MEASURED = "not measured"
UNVERIFIED = "unverified: the program knows how to start it, and no launch of it was ever stored"
CAN = "can: it has "
# What is measured by benchmarks/web_optimizations.py, by the name of its switch.
SWITCHES = {
    "shader warm-up": "precompilation",
    "parallel loading": "parallel_loading",
    "audio front end on the GPU": "gpu_audio",
    "woken readback": "readback",
}

Facts = Mapping[str, Any]
Select = Callable[[Launch], bool]


@dataclass(frozen=True)
class Effect:
    """Ratio of median times on one machine, same browser, same work: below 1, the first is faster. ``pairs`` were compared."""

    ratio: float | None
    pairs: int

    def __str__(self) -> str:
        return NOT_MEASURED if self.ratio is None else f"{self.ratio:.2g}× the time ({count(self.pairs, 'pair')})"


def browsers(matrix: Matrix) -> list[str]:
    """Those that some launch names, in the order in which the program knows them."""
    named = {launch["browser"] for launch in matrix.launches}
    return [key for key in KNOWN if key in named]


def support(matrix: Matrix, browser: str, live: Mapping[str, Facts | Unavailable] | None = None) -> dict[str, str]:
    """What the browser offers, by feature: as its launches showed it, else as it told a campaign; with ``live``
    (``browser_platform.browser_facts``) as it answered just now."""
    launches = [launch for launch in matrix.launches if launch["browser"] == browser]
    ran = [launch for launch in launches if launch["status"] == "ok"]
    facts = (live or {}).get(browser) or matrix.capabilities.get(browser)
    versions = sorted({str(launch["browser_version"]) for launch in ran if launch["browser_version"]})
    offered = {"version": ", ".join(versions) or NOT_ASKED}
    for platform in ("webgpu", "webnn", "wasm"):
        offered[platform] = _offered(platform, launches, facts)
    on_gpu = offered["webgpu"].startswith("yes")
    offered["compute shaders"] = "yes: every WebGPU kernel is one" if on_gpu else offered["webgpu"]
    threads = [int(launch["threads"]) for launch in ran if launch["platform"] == "wasm" and launch["threads"]]
    offered["wasm SIMD"] = "yes: the runtime needs it" if threads else _wasm(facts, "simd")
    offered["wasm threads"] = f"yes, {max(threads)}" if max(threads, default=1) > 1 else _wasm(facts, "threads")
    # What our own runtime does wherever the page has what that takes, which is less than a launch that used it.
    runs = [offered[platform] for platform in ("wasm", "webgpu", "webnn")]
    offered["shader warm-up"] = f"{CAN}WebGPU" if on_gpu else offered["webgpu"]
    offered["parallel loading"] = f"{CAN}a page" if any(text.startswith("yes") for text in runs) else runs[0]
    offered["2, 3 and 4-bit weights"] = f"{CAN}WebGPU" if on_gpu else offered["webgpu"]
    offered["KV cache of 2 to 32 bits"] = offered["2, 3 and 4-bit weights"]
    offered["times of single kernels"] = _feature(facts, "timestamp-query") if on_gpu else offered["webgpu"]
    offered["verified"] = f"yes: {count(len(ran), 'launch')}" if ran else UNVERIFIED
    return offered


def effects(matrix: Matrix, browser: str) -> dict[str, str]:
    """What using a feature does to the time, where launches with and without it are there to compare."""

    def on(platform: str, precision: str = "float32", family: str | None = None) -> Select:
        return lambda launch: (
            (launch["platform"], launch["precision"]) == (platform, precision)
            and (family is None or matrix.families[launch["model_class"]] == family)
            and (platform != "webgpu" or device_class(launch) == "GPU")
        )

    measured = {
        "WebGPU on a GPU against wasm": (on("webgpu"), on("wasm")),
        "the same, audio models": (on("webgpu", family="audio"), on("wasm", family="audio")),
        "WebNN against wasm": (on("webnn"), on("wasm")),
        "float16 against float32, WebGPU": (on("webgpu", "float16"), on("webgpu")),
        "4-bit weights against float32, WebGPU": (on("webgpu", "int4"), on("webgpu")),
    }
    launches = [launch for launch in matrix.launches if launch["browser"] == browser and launch["mode"] == "inference"]
    told = {name: str(effect(launches, first, second)) for name, (first, second) in measured.items()}
    return {**told, **{name: _switched(matrix, browser, switch) for name, switch in SWITCHES.items()}, **_low_bit(launches)}


def _switched(matrix: Matrix, browser: str, switch: str) -> str:
    """Each model, adapter and link by itself: what a switch brings differs too much between them for one number."""
    found = [each for each in matrix.effects if (each.browser, each.switch) == (browser, switch)]
    return "; ".join(f"{each} on {' '.join(each.adapter)}" for each in found) or NOT_MEASURED


def _low_bit(launches: Sequence[Launch]) -> dict[str, str]:
    """Of the language-model engine on a GPU: each width against 8 bits, and a quantised cache against one of 16 bits, where launches say
    what theirs was."""

    def of(precision: str, cache: tuple[str, ...] | None = None) -> Select:
        return lambda launch: (
            (launch["engine"], launch["precision"]) == ("wgsl", precision)
            and device_class(launch) == "GPU"
            and (cache is None or str(launch.get("kv_cache_bits")) in cache)
        )

    widths = {f"{bits}-bit weights against 8-bit, wgsl": (of(f"int{bits}"), of("int8")) for bits in (2, 3, 4)}
    told = {name: str(effect(launches, first, second)) for name, (first, second) in widths.items()}
    quantised = effect(launches, of("int4", ("2", "3", "4", "8")), of("int4", ("16",)))
    return {**told, "quantised KV cache, wgsl": str(quantised)}


def effect(launches: Sequence[Launch], first: Select, second: Select) -> Effect:
    """Geometric mean, over the machines and works that both have, of the ratio of their medians. Unchecked results do not count."""
    times: tuple[dict[Any, list[float]], dict[Any, list[float]]] = ({}, {})
    for launch in launches:
        for side, chosen in zip(times, (first, second), strict=True):
            if launch["status"] == "ok" and launch["accuracy_passed"] and launch["median_ms"] and chosen(launch):
                side.setdefault(_work(launch), []).append(launch["median_ms"])
    ratios = [median(times[0][work]) / median(times[1][work]) for work in times[0].keys() & times[1].keys()]
    return Effect(geometric_mean(ratios) if ratios else None, len(ratios))


def _work(launch: Launch) -> tuple[Any, ...]:
    """What is the same where only the platform or the precision differs."""
    names = ("machine_key", "model_class", "size", "weights", "origin", "batch_size", "sequence_length", "new_tokens")
    return tuple(launch[name] for name in names)


def _offered(platform: str, launches: Sequence[Launch], facts: Facts | Unavailable | None) -> str:
    own = [launch for launch in launches if launch["platform"] == platform]
    kinds = sorted({device_class(launch) for launch in own if launch["status"] == "ok"})
    if kinds:
        return f"yes: {', '.join(kinds)}"
    if isinstance(facts, Unavailable):
        return f"no: {facts.reason}"
    if facts is not None and platform in facts:
        return "yes, it says" if facts[platform].get("available", True) else f"no: {facts[platform]['reason']}"
    reasons = [launch["error_message"] for launch in own if launch["error_message"]]
    return f"no: {reasons[-1]}" if reasons else NOT_ASKED


def _feature(facts: Facts | Unavailable | None, feature: str) -> str:
    told = None if facts is None or isinstance(facts, Unavailable) else facts.get("webgpu", {}).get("features")
    return NOT_ASKED if told is None else "yes, it says" if feature in told else "no, it says"


def _wasm(facts: Facts | Unavailable | None, feature: str) -> str:
    told = None if facts is None or isinstance(facts, Unavailable) else facts.get("wasm", {}).get(feature)
    return NOT_ASKED if told is None else "yes, it says" if told else "no, it says"
