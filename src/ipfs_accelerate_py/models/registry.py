"""From the name that a person gives to a model class, a size and the origin of the weights. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from ..errors import UserError, nearest
from ..spec import MODES, PRECISIONS, Workload
from .base import ModelClass
from .loading import read_config, weight_files

WEIGHTS = ("auto", "synthetic", "trained")
CUSTOM_SIZE = "custom"  # of a folder or a hub model whose shape is none of the presets
SYNTHETIC_SEED = 0


@dataclass(frozen=True)
class ModelReference:
    """What a person asked for, resolved. ``path`` is the folder of trained weights; None for synthetic weights and for a hub
    model, whose weights are fetched when it is prepared."""

    model_class: str
    size: str
    weights: str  # synthetic or trained
    origin: str  # as Workload.origin
    path: Path | None = None


# The package's own entry points, by the class in the module of that name. To read those of all installed packages takes longer than a
# whole prediction, so they are read only where a name is not among these.
BUILT_IN = {
    "bert": "Bert",
    "clap": "Clap",
    "clip": "Clip",
    "detr": "Detr",
    "llama": "Llama",
    "llava": "Llava",
    "llava_next": "LlavaNext",
    "qwen2": "Qwen2",
    "t5": "T5",
    "vit": "ViT",
    "wav2vec2": "Wav2Vec2",
    "whisper": "Whisper",
    "xclip": "XClip",
}


@cache
def built_in() -> dict[str, ModelClass]:
    """The package's own model classes by name."""
    return {name: getattr(import_module(f"{__package__}.{name}"), kind)() for name, kind in BUILT_IN.items()}


def model_class(name: str | None) -> ModelClass | None:
    """The class of this name; None where there is none."""
    if name is None:
        return None
    return built_in().get(name) or model_classes().get(name)


@cache
def model_classes() -> dict[str, ModelClass]:
    """Every installed model class by name, from the entry point group ``ipfs_accelerate_py.models``."""
    import importlib.metadata

    points = importlib.metadata.entry_points(group="ipfs_accelerate_py.models")
    return {point.name: point.load()() for point in sorted(points)}


def resolve(reference: str, size: str | None = None, weights: str = "auto") -> ModelReference:
    """The model that ``reference`` names: a class (``bert``), a published name (``bert-base-uncased``), a local folder, or a hub id
    (``google-bert/bert-base-uncased``, with ``@revision`` if wanted).

    ``weights`` auto takes trained ones where they are at hand: for a folder, a hub id, and a size whose package is installed. A
    published name without its organisation is the preset of that shape, so its weights are synthetic unless trained ones are asked for.
    Raises UserError for an unknown name, a folder without a model, and a hub model that cannot be reached.
    """
    if weights not in WEIGHTS:
        raise nearest(weights, WEIGHTS, "kind of weights")
    classes = model_classes()
    if reference in classes:
        return _of_class(classes[reference], size, weights)
    if Path(reference).expanduser().is_dir():
        return _of_folder(Path(reference).expanduser().resolve(), size, weights)
    if reference.startswith((".", "~", "/")) or reference.count("/") > 1:
        raise UserError(f"There is no folder '{reference}'.")
    if "/" in reference:
        return _of_hub(reference, size, weights)
    names = published_names()
    if reference in names:
        name, own_size = names[reference]
        if size not in (None, own_size):
            raise UserError(f"'{reference}' is {name} {own_size}; leave the size out.")
        return _of_class(classes[name], own_size, weights)
    raise nearest(reference, classes, "model", also=names)


def published_names() -> dict[str, tuple[str, str]]:
    """Model class and size by the last part of a preset's hub id: ``bert-base-uncased``."""
    return {
        size.hub_id.partition("@")[0].rpartition("/")[2]: (model_class.name, name)
        for model_class in model_classes().values()
        for name, size in model_class.sizes.items()
        if size.hub_id
    }


def workload(
    reference: ModelReference,
    *,
    batch_size: int = 1,
    sequence_length: int | None = None,
    new_tokens: int | None = None,
    precision: str = "float32",
    mode: str = "inference",
) -> Workload:
    """The workload of a model, with the class's defaults. A length that the model does not have (tokens of an image model, new
    tokens of an encoder and in training) is left out of it. Raises UserError for one that is too long."""
    model_class = model_classes()[reference.model_class]
    for name, known, what in ((precision, PRECISIONS, "precision"), (mode, MODES, "mode")):
        if name not in known:
            raise nearest(name, known, what)
    for name, value in (("batch size", batch_size), ("sequence length", sequence_length), ("number of new tokens", new_tokens)):
        if value is not None and value < 1:
            raise UserError(f"The {name} must be at least 1, not {value}.")
    sequence = None
    if model_class.default_sequence_length is not None:
        sequence = sequence_length or model_class.default_sequence_length
    new = None
    if model_class.default_new_tokens is not None and mode == "inference":
        new = new_tokens or model_class.default_new_tokens
    longest = _longest(model_class, reference)
    if longest is not None and (sequence or 0) + (new or 0) > longest:
        asked = " + ".join(f"{count} {what}" for count, what in ((sequence, "input tokens"), (new, "new tokens")) if count)
        raise UserError(f"{reference.model_class} {reference.size} takes at most {longest} tokens, and {asked} were asked for.")
    return Workload(
        model_class=reference.model_class,
        size=reference.size,
        weights=reference.weights,
        origin=reference.origin,
        task=model_class.task,
        batch_size=batch_size,
        sequence_length=sequence,
        new_tokens=new,
        precision=precision,
        mode=mode,
    )


def _longest(model_class: ModelClass, reference: ModelReference) -> int | None:
    if reference.path is not None:
        return model_class.longest(read_config(reference.path))
    if reference.size in model_class.sizes:
        return model_class.longest(model_class.sizes[reference.size].config)
    from .hub import hub_config

    return model_class.longest(hub_config(reference.origin.removeprefix("hub:"))[0])


def _of_class(model_class: ModelClass, size: str | None, weights: str) -> ModelReference:
    size = size or model_class.default_size
    if size not in model_class.sizes:
        raise nearest(size, model_class.sizes, f"size of {model_class.name}")
    preset = model_class.sizes[size]
    if weights != "synthetic" and preset.package is not None and (found := _package(preset.package)) is not None:
        folder, version = found
        return ModelReference(model_class.name, size, "trained", f"package:{preset.package}=={version}", folder)
    if weights == "trained":
        if preset.hub_id is None:
            raise UserError(f"{model_class.name} {size} is a test size without trained weights; ask for synthetic ones.")
        return _of_hub(preset.hub_id, size, weights)
    return ModelReference(model_class.name, size, "synthetic", f"synthetic:{SYNTHETIC_SEED}")


def _of_folder(folder: Path, size: str | None, weights: str) -> ModelReference:
    if size is not None:
        raise UserError(f"'{folder}' has a size of its own; leave the size out.")
    if weights == "synthetic":
        raise UserError("A folder has trained weights; for synthetic ones name a model class and a size.")
    config = read_config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in weight_files(folder):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    model_class = class_of(config["model_type"], str(folder))
    return ModelReference(model_class.name, CUSTOM_SIZE, "trained", f"folder:{digest.hexdigest()[:16]}", folder)


def _of_hub(reference: str, size: str | None, weights: str) -> ModelReference:
    name, _, revision = reference.partition("@")
    presets = {
        hub_id: (kind, key, pinned)
        for kind in model_classes().values()
        for key, size_of in kind.sizes.items()
        for hub_id, _, pinned in [(size_of.hub_id or "").partition("@")]
        if hub_id
    }
    preset = presets.get(name)
    if preset is not None and size not in (None, preset[1]):
        raise UserError(f"'{name}' is {preset[0].name} {preset[1]}; leave the size out.")
    if weights == "synthetic":
        if preset is None:
            raise UserError(f"'{name}' is not one of the known shapes; for synthetic weights name a model class and a size.")
        return ModelReference(preset[0].name, preset[1], "synthetic", f"synthetic:{SYNTHETIC_SEED}")
    from .hub import hub_config

    revision = revision or (preset[2] if preset else "")
    config, commit = hub_config(f"{name}@{revision}" if revision else name)
    model_class = class_of(config["model_type"], name)
    return ModelReference(model_class.name, preset[1] if preset else CUSTOM_SIZE, "trained", f"hub:{name}@{commit}")


def class_of(model_type: str, where: str) -> ModelClass:
    """The class that takes ``model_type`` of a config.json; UserError where none does."""
    for model_class in model_classes().values():
        if model_type in model_class.transformers_model_types:
            return model_class
    known = ", ".join(sorted(kind for model_class in model_classes().values() for kind in model_class.transformers_model_types))
    raise UserError(f"'{where}' is a model of type '{model_type}', which is not supported; supported: {known}.")


def _package(name: str) -> tuple[Path, str] | None:
    """Folder of the model that an installed package carries, and the package's version."""
    import importlib.metadata

    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    configs = [file for file in distribution.files or () if file.name == "config.json"]
    for file in sorted(configs, key=lambda file: len(file.parts)):
        folder = Path(str(distribution.locate_file(file))).parent
        if (folder / "model.safetensors").is_file() and "model_type" in json.loads((folder / "config.json").read_text()):
            return folder, distribution.version
    return None
