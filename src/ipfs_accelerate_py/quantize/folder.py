"""Quantise a model tensor by tensor into a folder of shards: atomic, resumable, with exact bytes and measured errors.

``unfinished.json`` in the output folder says which shards are done and what was asked for. A run that was stopped goes on behind the
last whole shard; a finished folder is checked, and only damaged shards are made again.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from . import architecture, safetensors_file, stored
from .fisher import fisher
from .formats import BITS, Format
from .plan import Plan, mixed, uniform
from .sensitivity import measure
from .shard import ShardMaker
from .sources import Source

SOLVERS = ("rtn", "hqq", "gptq")
UNFINISHED = "unfinished.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Request:
    """What was asked for. ``budget`` in bits a weight (None: every matrix gets ``bits``); ``windows_sha256`` names the calibration text.

    Raises UserError for a combination that makes no sense.
    """

    origin: str
    bits: int
    group_size: int
    solver: str
    budget: float | None = None
    windows_sha256: str | None = None

    def __post_init__(self) -> None:
        Format(self.bits, self.group_size)
        if self.solver not in SOLVERS:
            raise nearest(self.solver, SOLVERS, "solver")
        if self.solver == "gptq" and self.windows_sha256 is None:
            raise UserError("The solver gptq compensates errors on a text: name one with --text, or take rtn or hqq.")
        if self.solver == "hqq" and self.windows_sha256 is not None:
            raise UserError("The solver hqq uses no text: leave --text out, or take gptq.")
        if self.budget is not None and not self.bits < self.budget < 9:
            raise UserError(f"A budget is in bits a weight, above {self.bits} (of --bits) and below 9; {self.budget:g} is not.")


def windows_digest(windows: np.ndarray | None) -> str | None:
    """What Request calls ``windows_sha256``."""
    return None if windows is None else hashlib.sha256(windows.astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Progress:
    """What a run reports before each tensor or shard: the ``phase`` (listening to the text, measuring, quantising, checking), its name,
    and float16 bytes."""

    phase: str
    name: str
    done_bytes: int
    total_bytes: int


def quantize_folder(
    source: Source,
    request: Request,
    folder: Path,
    windows: np.ndarray | None = None,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Make, finish or check a folder of low-bit weights; its manifest. ``windows`` int64 [windows, length] are calibration tokens.

    Holds one tensor in memory, with a text one layer and the hidden states of the windows. Raises UserError for a folder in other
    use, a disk that is too small, and weights that cannot be quantised.
    """
    if windows_digest(windows) != request.windows_sha256:
        raise ValueError("the request names other calibration windows")
    return _Run(source, request, folder, windows, device, on_progress).manifest()


class _Run:
    def __init__(
        self,
        source: Source,
        request: Request,
        folder: Path,
        windows: np.ndarray | None,
        device: str,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.source, self.request, self.folder = source, request, folder
        self.windows, self.device, self.on_progress = windows, device, on_progress
        self.shapes = architecture.shapes(source.config)
        self.state = self._state()
        self.done_bytes = 0

    def manifest(self) -> dict[str, Any]:
        if "plan" not in self.state:
            plan = self._plan()
            bits = {name: form.bits for name, form in plan.formats.items()}
            self.state["plan"] = {"sensitivity": plan.sensitivity, "bits": bits}
        facts = self.state["plan"]
        self.plan = Plan(
            {name: Format(bits, self.request.group_size) for name, bits in facts["bits"].items()}, facts["sensitivity"]
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space()
        maker = ShardMaker(
            self.source, self.plan, self.request.solver, self.device, self.windows, self._read_made, self._heard("quantising")
        )
        checking = self._heard("checking")
        damaged = False
        for shard, names in architecture.shards(self.shapes).items():
            known = self.state["shards"].get(shard)
            if known is not None and stored.damage_of(self.folder, known) is None:
                for name in names:
                    checking(name)
                maker.skip(names)
                continue
            damaged = True
            made = maker.make(names)
            file = f"{shard}.safetensors"
            written = safetensors_file.write(self.folder / file, made.arrays.items(), {"shard": shard})
            self.state["shards"][shard] = {"file": file, **written, "tensors": names}
            self.state["tensors"] |= made.facts
            self._save()
        return self._finish() if damaged or not (self.folder / stored.MANIFEST).is_file() else stored.read_manifest(self.folder)

    def _state(self) -> dict[str, Any]:
        """What is done already, from the journal or the manifest of an earlier run with the same request."""
        asked = asdict(self.request)
        for name in (stored.MANIFEST, UNFINISHED):
            if (self.folder / name).is_file():
                finished = name == stored.MANIFEST
                found = stored.read_manifest(self.folder) if finished else stored.read_json(self.folder / name)
                if found.get("request") != asked:
                    raise UserError(f"'{self.folder}' holds the weights of another request: name another folder with --output.")
                shards = found["shards"]
                if finished:
                    shards = {shard["file"].removesuffix(".safetensors"): shard for shard in shards}
                return {"request": asked, "plan": found["plan"], "shards": shards, "tensors": found["tensors"]}
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(f"'{self.folder}' is there already and holds something else: name another folder with --output.")
        return {"request": asked, "shards": {}, "tensors": {}}

    def _save(self) -> None:
        safetensors_file.write_json(self.folder / UNFINISHED, self.state)
        (self.folder / stored.MANIFEST).unlink(missing_ok=True)  # while shards are made anew the folder is not complete

    def _plan(self) -> Plan:
        config, form = self.source.config, Format(self.request.bits, self.request.group_size)
        if self.request.budget is None:
            return uniform(config, form)
        mixed(config, form, self.request.budget)  # a budget that is too small is refused before anything is measured
        widths = tuple(bits for bits in BITS if bits >= form.bits)
        costs = None
        if self.windows is not None:
            costs = fisher(self.source, self.windows, self.device, self._heard("listening"))
        errors = measure(self.source, form.group_size, widths, costs, self.device, self._heard("measuring"))
        return mixed(config, form, self.request.budget, errors)

    def _heard(self, phase: str) -> Callable[[str], None]:
        total = architecture.float16_bytes(self.source.config)
        self.done_bytes = 0

        def heard(name: str) -> None:
            self.on_progress(Progress(phase, name, self.done_bytes, total))
            self.done_bytes += 2 * math.prod(self.shapes[name])

        return heard

    def _check_space(self) -> None:
        made = sum(shard["bytes"] for shard in self.state["shards"].values())
        needed = self.plan.stored_bytes(self.source.config) - made
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(f"'{self.folder}' needs {needed / 1e9:.2f} GB more, and its disk has {free / 1e9:.2f} GB free.")

    def _read_made(self, name: str) -> np.ndarray:
        shard = next(shard for shard in self.state["shards"].values() if name in shard["tensors"])
        entries = safetensors_file.entries(self.folder / shard["file"])
        if name in self.plan.formats:
            return stored.packed(entries, name, self.plan.formats[name], self.shapes[name][1]).dequantize()
        return safetensors_file.read_float(name, entries[name])

    def _finish(self) -> dict[str, Any]:
        files = {}
        for name in TOKENIZER_FILES:
            if self.source.folder is not None and (self.source.folder / name).is_file():
                shutil.copyfile(self.source.folder / name, self.folder / name)
                files[name] = safetensors_file.sha256(self.folder / name)
        manifest = {
            "format": stored.FORMAT,
            "version": stored.VERSION,
            "request": self.state["request"],
            "plan": self.state["plan"],
            "totals": totals(self.source.config, self.state["tensors"]),
            "config": dict(self.source.config),
            "files": files,
            "shards": [self.state["shards"][shard] for shard in architecture.shards(self.shapes)],
            "tensors": {name: self.state["tensors"][name] for name in self.shapes},
        }
        safetensors_file.write_json(self.folder / "config.json", manifest["config"])
        safetensors_file.write_json(self.folder / stored.MANIFEST, manifest)
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return manifest


def totals(config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Exact bytes of all the tensors (the shards' headers are not in them), against float16."""
    weights = sum(math.prod(facts["shape"]) for facts in tensors.values())
    size, float16 = sum(facts["bytes"] for facts in tensors.values()), architecture.float16_bytes(config)
    return {
        "weights": weights,
        "bytes": size,
        "float16_bytes": float16,
        "bits_per_weight": 8 * size / weights,
        "reduction_percent": 100 * (1 - size / float16),
    }
