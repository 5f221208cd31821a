"""A folder of a plan's shapes without a model behind it: zeros, to compile an engine's kernels for them, or random codes, to time it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import architecture, safetensors_file, stored
from .folder import Request, totals
from .formats import Format
from .plan import Plan

STD = 0.02


def shortened(config: Mapping[str, Any], plan: Plan) -> tuple[dict[str, Any], Plan]:
    """The configuration and plan of a model with one layer of each combination of widths that the plan has."""
    layers: dict[tuple[Format, ...], int] = {}
    for layer in range(int(config["num_hidden_layers"])):
        layers.setdefault(tuple(form for name, form in plan.formats.items() if architecture.layer_of(name) == layer), layer)
    kept = {old: new for new, old in enumerate(layers.values())}
    formats = {}
    for name, form in plan.formats.items():
        layer_of = architecture.layer_of(name)
        if layer_of is None:
            formats[name] = form
        elif layer_of in kept:
            formats[name.replace(f"layers.{layer_of}.", f"layers.{kept[layer_of]}.", 1)] = form
    return {**config, "num_hidden_layers": len(kept)}, Plan(formats, plan.sensitivity)


def write_blank(config: Mapping[str, Any], plan: Plan, folder: Path, seed: int | None = None) -> None:
    """Write a complete folder into ``folder``, which must be empty. All weights are zero; with ``seed`` the codes are random, the
    weights have a standard deviation of about STD, and the norms are 1, so that numbers stay ordinary: the same bytes and work as a
    quantised model's, in a fraction of the time, and the text of none."""
    generator = None if seed is None else np.random.default_rng(seed)

    def words(plane: str, *shape: int) -> np.ndarray:
        if generator is None:
            return np.zeros(shape, "<u4")
        if plane == "zero_codes":
            return np.full(shape, 0x77777777, "<u4")  # the middle of the codes
        return generator.integers(0, 2**32, shape, dtype="<u4")

    facts: dict[str, dict[str, Any]] = {}
    shards = []
    shapes = architecture.shapes(config)
    for shard, names in architecture.shards(shapes).items():
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            form, shape = plan.formats.get(name), shapes[name]
            facts[name] = {"shape": list(shape)}
            if form is None:
                arrays[name] = np.full(shape, float(generator is not None and name.endswith("norm.weight")), "<f4")
                facts[name]["bytes"] = arrays[name].nbytes
                continue
            for plane, count in form.plane_words(shape[1]).items():
                arrays[f"{name}.{plane}"] = words(plane, shape[0], count)
            # Scale codes are half of their largest on average; codes spread evenly have a standard deviation of largest / sqrt(12).
            scale = 0.0 if generator is None else 2 * STD * math.sqrt(12) / form.largest_code
            arrays[f"{name}.row_scales"] = np.full(shape[0], scale, "<f2")
            facts[name] |= {"bits": form.bits, "group_size": form.group_size, "bytes": form.stored_bytes(shape[0], shape[1])}
        file = f"{shard}.safetensors"
        shards.append(
            {"file": file, **safetensors_file.write(folder / file, arrays.items(), {"shard": shard}), "tensors": names}
        )
    form = next(iter(plan.formats.values()))
    manifest = {
        "format": stored.FORMAT,
        "version": stored.VERSION,
        "request": asdict(Request("blank" if seed is None else f"random codes {seed}", form.bits, form.group_size, "rtn")),
        "plan": {"sensitivity": plan.sensitivity, "bits": {name: form.bits for name, form in plan.formats.items()}},
        "totals": totals(config, facts),
        "config": dict(config),
        "files": {},
        "shards": shards,
        "tensors": facts,
    }
    safetensors_file.write_json(folder / stored.MANIFEST, manifest)
