"""A world whose times follow a known law, as evidence: what a predictor learns there is checked against the law itself."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from ipfs_accelerate_py.graph import ModelCounts, count, describe
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.predict.fitting import Costs, terms
from ipfs_accelerate_py.predict.observations import DeviceKey, Evidence, Observation

MODELS = (
    ("bert", "small"),
    ("bert", "base"),
    ("vit", "small"),
    ("vit", "base"),
    ("t5", "small"),
    ("llama", "small"),
    ("clip", "small"),
)
SHAPES = ((1, 32), (1, 128), (4, 64))


def device(number: int, platform: str = "cpu", engine: str = "onnxruntime", browser: str | None = None) -> DeviceKey:
    return DeviceKey(machine=f"{number:016x}", platform=platform, engine=engine, device="default", browser=browser)


def ceilings(speed: float) -> Ceilings:
    """A probed device ``speed`` times as fast as a small processor."""
    return Ceilings(
        "probe",
        "x",
        {"float32": ((1e6, 5e10 * speed), (1e9, 1e11 * speed))},
        ((1e6, 4e10 * speed), (1e8, 1e10 * speed)),
        2e-6,
        1e-4,
    )


def world(devices: int = 4, noise: float = 0.03, seed: int = 0, probed: bool = True) -> Evidence:
    """Each device has its speed; its engine needs 1.5 times the roofline, 2 us a kernel and 100 us an execution, give or take."""
    generator = np.random.default_rng(seed)
    evidence = Evidence([], {}, {}, Counter())
    for number in range(devices):
        key, own = device(number), ceilings(1 + number)
        costs = Costs.plain(1.5 * math.exp(generator.normal(0, 0.05)), 1.5, 2e-6, 1e-4)
        evidence.machines[key.machine] = {"cpu_model": f"processor {number}", "logical_cpus": 4, "gpus": None}
        if probed:
            evidence.probes[key.text] = own
        for model_class, size in MODELS:
            for batch, length in SHAPES:
                evidence.observations.append(observation(key, own, costs, model_class, size, batch, length, noise, generator))
    return evidence


def peak_bytes(counts: ModelCounts) -> float:
    """The law of memory: 200 MB, 1.9 times the weights, caches and the largest operator 1.2 times."""
    return 2e8 + 1.9 * counts.weights_bytes + 1.2 * (counts.kv_cache_bytes + counts.largest_activation_bytes)


def observation(
    key: DeviceKey,
    own: Ceilings,
    costs: Costs,
    model_class: str,
    size: str,
    batch: int,
    length: int,
    noise: float,
    generator: Any,
) -> Observation:
    description = describe(model_class, size)
    length_or_none = None if model_class == "vit" else length
    new = 16 if description.generates else None
    counts = count(description, batch_size=batch, sequence_length=length_or_none, new_tokens=new)
    found = terms(counts, own, key.engine, "float32")
    ms = {name: 1000 * term.seconds(costs) * math.exp(generator.normal(0, noise)) for name, term in found.items()}
    return Observation(
        key=key,
        description=description,
        counts=counts,
        batch_size=batch,
        sequence_length=length_or_none,
        new_tokens=new,
        precision="float32",
        mode="inference",
        ms=ms,
        low_ms=0.98 * ms["total"],
        high_ms=1.02 * ms["total"],
        launches=5,
        peak_bytes=peak_bytes(counts),
        software_adapter=False,
    )
