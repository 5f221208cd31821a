"""The cache of prepared models: what decides a part of it, and how a part is made once by however many processes want it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .registry import ModelReference, model_classes

RECIPE = 4  # raise when what is made from the same workload changes, so that older caches are left alone


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``make`` if it is not there. Another process that makes it at the same time may win; both get a whole one."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(building)
        building.chmod(0o755)  # mkdtemp's folders are for their owner only
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def model_key(reference: ModelReference) -> dict[str, Any]:
    """What decides the weights, wherever they lie. Synthetic ones follow from the shape, which an installed class may have changed under
    the same name, and from the order in which transformers makes the parameters."""
    key = asdict(reference) | {"path": None}
    if reference.weights == "synthetic":
        key["config"] = dict(model_classes()[reference.model_class].sizes[reference.size].config)
        key["transformers"] = importlib.metadata.version("transformers") if importlib.util.find_spec("transformers") else None
    return key


def synthetic_seed(origin: str) -> int:
    return int(origin.removeprefix("synthetic:"))


def weights_folder(reference: ModelReference) -> Path:
    """Where the config.json and safetensors of a trained model are: fetched or given."""
    if reference.origin.startswith("hub:"):
        from .hub import hub_folder

        return hub_folder(reference.origin.removeprefix("hub:"))
    assert reference.path is not None
    return reference.path
