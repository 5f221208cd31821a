"""A folder that ``ipfs-accelerate quantize`` made, resolved as a model: it has no float weights, and only the WGSL engine runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..models.registry import CUSTOM_SIZE, ModelReference, class_of
from ..quantize.stored import MANIFEST, read_manifest

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def low_bit_folder(name: str) -> Path | None:
    """The folder that ``name`` is, where it holds low-bit weights."""
    folder = Path(name).expanduser()
    return folder.resolve() if (folder / MANIFEST).is_file() else None


def low_bit_reference(folder: Path, size: str | None, weights: str) -> ModelReference:
    """As ``models.registry.resolve`` gives it, with the float weights' origin. UserError for a size, or for another kind of weights."""
    manifest = read_manifest(folder)
    origin = str(manifest["request"]["origin"])
    kind = "synthetic" if origin.startswith("synthetic:") else "trained"
    if size is not None:
        raise UserError(f"'{folder}' has a size of its own; leave the size out.")
    if weights not in ("auto", kind):
        raise UserError(f"'{folder}' holds {kind} weights; leave the kind of weights out.")
    model_class = class_of(manifest["config"]["model_type"], str(folder))
    return ModelReference(model_class.name, CUSTOM_SIZE, kind, origin, folder)


def low_bit_processing(folder: Path) -> tuple[PretrainedConfig, Path]:
    """As ``models.prepare.processing``."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False), folder
