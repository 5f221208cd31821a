"""A folder of quantised weights: its manifest, its shards, and reading them back.

``manifest.json`` is written last, so a folder that has one is complete. Each shard is a safetensors file whose tensors are the planes
of ``formats.py``, named ``TENSOR.PLANE`` (``model.layers.0.mlp.up_proj.weight.codes``), and float32 tensors under their own names.
Every tensor starts at a multiple of 8 bytes; ``.filling`` tensors between them hold nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..models.loading import read_json
from . import safetensors_file
from .formats import Format, QuantizedMatrix

MANIFEST = "manifest.json"
FORMAT = "ipfs_accelerate_py low-bit weights"
VERSION = 1
REPAIR = "Run the quantize command that made it again: only damaged and missing shards are made anew."


class QuantizedFolder:
    """Reads a complete folder. ``config`` and ``tensors`` are the manifest's. UserError for a folder that is not one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.config: Mapping[str, Any] = self.manifest["config"]
        self.tensors: Mapping[str, Mapping[str, Any]] = self.manifest["tensors"]
        self.origin = str(self.manifest["request"]["origin"])
        self._shards = {name: shard for shard in self.manifest["shards"] for name in shard["tensors"]}
        self._open: dict[str, dict[str, safetensors_file.Entry]] = {}

    def matrix(self, name: str) -> QuantizedMatrix:
        """The packed matrix of a quantised tensor."""
        facts = self.tensors[name]
        return packed(self._entries(name), name, Format(facts["bits"], facts["group_size"]), facts["shape"][1])

    def read(self, name: str) -> np.ndarray:
        """float32 of the tensor's shape, dequantised by the reference decoder."""
        if "bits" in self.tensors[name]:
            return self.matrix(name).dequantize()
        return safetensors_file.read_float(name, self._entries(name)[name])

    def verify(self) -> None:
        """UserError naming the first shard that is missing, truncated or altered."""
        for shard in self.manifest["shards"]:
            if (damage := damage_of(self.folder, shard)) is not None:
                raise UserError(f"{damage} {REPAIR}")

    def _entries(self, name: str) -> dict[str, safetensors_file.Entry]:
        shard = self._shards[name]
        if shard["file"] not in self._open:
            file = self.folder / shard["file"]
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                raise UserError(f"{damage_of(self.folder, shard)} {REPAIR}")
            self._open[shard["file"]] = safetensors_file.entries(file)
        return self._open[shard["file"]]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder; UserError where it is none."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"'{folder}' holds no finished low-bit weights: it has no {MANIFEST}.")
    manifest = read_json(path)
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise UserError(f"'{path}' is not of a format that this version reads ({FORMAT} {VERSION}).")
    for shard in manifest.get("shards", ()):  # of a folder that others made: a name must not lead out of it
        if not re.fullmatch(r"[\w-]+\.safetensors", str(shard.get("file"))):
            raise UserError(f"'{path}' names a shard '{shard.get('file')}', which is no file of its own folder.")
    return manifest


def damage_of(folder: Path, shard: Mapping[str, Any]) -> str | None:
    """What is wrong with a shard, as a sentence; None where nothing is. Reads all of it."""
    file = folder / shard["file"]
    if not file.is_file():
        return f"Shard '{file}' is missing."
    size = file.stat().st_size
    if size != shard["bytes"]:
        state = "truncated" if size < shard["bytes"] else "too long"
        return f"Shard '{file}' is {state}: it has {size:,} bytes of {shard['bytes']:,}."
    if safetensors_file.sha256(file) != shard["sha256"]:
        return f"Shard '{file}' was altered: its SHA-256 is not the one in {MANIFEST}."
    return None


def packed(entries: Mapping[str, safetensors_file.Entry], name: str, form: Format, columns: int) -> QuantizedMatrix:
    """The matrix from the planes of a shard."""
    planes = {
        plane: safetensors_file.read_stored(entries[f"{name}.{plane}"]) for plane in (*form.plane_words(columns), "row_scales")
    }
    return QuantizedMatrix(form, columns, **planes)
