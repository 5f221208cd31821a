"""What training leaves: plain numbers in a JSON file, so that predicting needs neither a store nor a learning library."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..spec import identity
from .ceilings import Ceilings
from .fitting import Costs
from .memory import Footprint

FORMAT = 5


@dataclass(frozen=True)
class Measured:
    """A cell that was measured: medians in ms of ``total``, ``first`` and ``token``, and the lowest and highest launch."""

    model: str
    batch_size: int
    sequence_length: int | None
    new_tokens: int | None
    precision: str
    mode: str
    ms: dict[str, float]
    low_ms: float
    high_ms: float
    launches: int
    # of an iteration: median, lowest and highest launch, and their number
    energy_j: tuple[float, float, float, int] | None = None


@dataclass(frozen=True)
class FittedDevice:
    """``models`` has the costs of each model that was measured there; ``memory`` is None where no peak was measured."""

    key: str
    name: str
    ceilings: Ceilings
    costs: Costs
    models: dict[str, Costs]
    cells: tuple[Measured, ...]
    memory: Footprint | None
    software_adapter: bool = False
    # mean while models ran: the median of its cells, and how far they lie, in the logarithm
    power_w: tuple[float, float] | None = None


@dataclass(frozen=True)
class Width:
    """Half the width of a regime's interval, in the logarithm, from the errors of ``n`` predictions over ``groups`` left-out groups."""

    half_width: float
    n: int
    groups: int
    error: dict[str, float] = field(default_factory=dict)  # median and mean absolute percentage error, coverage


@dataclass(frozen=True)
class Fitted:
    """``priors``: the costs of an engine on a device that nothing is known of. ``residual``: see ``residual.py``."""

    version: str
    trained_on: dict[str, Any]
    devices: dict[str, FittedDevice]
    priors: dict[str, Costs]
    residual: dict[str, Any]
    widths: dict[str, Width]
    memory_width: Width
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        raw = asdict(self) | {"format": FORMAT}
        for key, device in self.devices.items():
            raw["devices"][key]["ceilings"] = device.ceilings.to_dict()
        return json.dumps(_rounded(raw), indent=0, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Fitted:
        raw = json.loads(text)
        if raw.pop("format", None) != FORMAT:
            raise UserError(
                "The fitted predictor is of another version: train it again with 'ipfs-accelerate predict --train'."
            )
        devices = {
            key: FittedDevice(
                **{
                    **device,
                    "ceilings": Ceilings.from_dict(device["ceilings"]),
                    "costs": Costs(**device["costs"]),
                    "memory": device["memory"] and Footprint(**device["memory"]),
                    "models": {name: Costs(**costs) for name, costs in device["models"].items()},
                    "cells": tuple(
                        Measured(**{**cell, "energy_j": cell["energy_j"] and tuple(cell["energy_j"])})
                        for cell in device["cells"]
                    ),
                    "power_w": device["power_w"] and tuple(device["power_w"]),
                }
            )
            for key, device in raw["devices"].items()
        }
        return cls(
            **{
                **raw,
                "devices": devices,
                "priors": {name: Costs(**costs) for name, costs in raw["priors"].items()},
                "widths": {name: Width(**width) for name, width in raw["widths"].items()},
                "memory_width": Width(**raw["memory_width"]),
                "warnings": tuple(raw["warnings"]),
            }
        )

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(self.to_json() + "\n", encoding="utf-8")
        return partial.replace(path)  # whole or not at all: others may read it meanwhile


def version_of(evidence: Any) -> str:
    """A name for what a training used: equal data and equal method give equal versions."""
    return f"{FORMAT}.{identity(evidence)[:10]}"


@cache
def shipped() -> Fitted:
    """Trained on the reference measurements that come with the program, by ``benchmarks/prediction.py --train``."""
    return Fitted.from_json(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))


def _rounded(value: Any) -> Any:
    """Six significant digits: more is noise, and the file is kept in git."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
