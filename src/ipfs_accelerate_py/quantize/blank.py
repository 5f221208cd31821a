"""A folder of a plan's shapes whose weights are all zero: what an engine needs to compile its kernels where there are no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import architecture, safetensors_file, stored
from .folder import Request, totals
from .formats import Format
from .plan import Plan


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


def write_blank(config: Mapping[str, Any], plan: Plan, folder: Path) -> None:
    """Write a complete folder of zeros into ``folder``, which must be empty."""
    facts: dict[str, dict[str, Any]] = {}
    shards = []
    shapes = architecture.shapes(config)
    for shard, names in architecture.shards(shapes).items():
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            form, shape = plan.formats.get(name), shapes[name]
            facts[name] = {"shape": list(shape)}
            if form is None:
                arrays[name] = np.zeros(shape, "<f4")
                facts[name]["bytes"] = arrays[name].nbytes
                continue
            for plane, words in form.plane_words(shape[1]).items():
                arrays[f"{name}.{plane}"] = np.zeros((shape[0], words), "<u4")
            arrays[f"{name}.row_scales"] = np.zeros(shape[0], "<f2")
            facts[name] |= {"bits": form.bits, "group_size": form.group_size, "bytes": form.stored_bytes(shape[0], shape[1])}
        file = f"{shard}.safetensors"
        shards.append(
            {"file": file, **safetensors_file.write(folder / file, arrays.items(), {"shard": shard}), "tensors": names}
        )
    form = next(iter(plan.formats.values()))
    manifest = {
        "format": stored.FORMAT,
        "version": stored.VERSION,
        "request": asdict(Request("blank", form.bits, form.group_size, "rtn")),
        "plan": {"sensitivity": plan.sensitivity, "bits": {name: form.bits for name, form in plan.formats.items()}},
        "totals": totals(config, facts),
        "config": dict(config),
        "files": {},
        "shards": shards,
        "tensors": facts,
    }
    safetensors_file.write_json(folder / stored.MANIFEST, manifest)
