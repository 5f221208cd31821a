"""What a model is, from its name or its files: its class, its true shape and its number of parameters. No weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..models.loading import read_config, read_json
from ..models.registry import CUSTOM_SIZE, built_in, model_classes
from ..models.registry import model_class as registered
from . import names
from .traces import shape_of, trace_of

OTHER_TYPES = {"mistral": ("causal", "text_generation"), "roberta": ("bert", "embedding"), "xlm-roberta": ("bert", "embedding")}


@dataclass(frozen=True)
class ModelDescription:
    """A model as the counter and the predictor know it.

    ``model_class`` is one of the 13, None for a graph and for a configuration of another type. ``size`` is a preset of the class,
    None for other shapes. ``layers`` counts the decoder's where there is one. ``graph`` is the ONNX file of a description made from one.
    """

    name: str
    model_class: str | None
    size: str | None
    family: str
    hub_id: str | None
    config: Mapping[str, Any]
    parameters: int
    layers: int
    hidden_size: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    architecture: str
    generates: bool
    graph: Path | None = None

    def __hash__(self) -> int:
        return hash((self.name, self.model_class, self.size, self.parameters))


def describe(reference: str | Path, size: str | None = None) -> ModelDescription:
    """The model that ``reference`` names: a class (with a ``size``), a published or colloquial name (``bert-base-uncased``, ``llama-7b``),
    a folder with a config.json, a config.json, or an ONNX file. UserError, with the nearest names, for what is none of these."""
    text = str(reference)
    path = Path(text).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        return _of_graph(path)
    if path.is_dir():
        return _of_config(text, read_config(path))
    if path.suffix == ".json" and path.is_file():
        return _of_config(text, read_json(path))
    if path.suffix in (".onnx", ".json") or text.startswith((".", "/", "~")):
        raise UserError(f"There is no file or folder '{text}'.")
    return _of_name(text, size)


@lru_cache(maxsize=512)
def _of_name(text: str, size: str | None) -> ModelDescription:
    kind = built_in().get(text)
    found = None if kind else names.find(text)
    kind = kind or (None if found else registered(text))
    if kind is not None:
        wanted = size or kind.default_size
        if wanted not in kind.sizes:
            raise nearest(wanted, kind.sizes, f"size of {text}")
        preset = kind.sizes[wanted]
        return _built(f"{text} {wanted}", text, wanted, text, preset.hub_id, preset.config)
    if found is None:
        problem = nearest(text, model_classes(), "model", also=names.known())
        raise UserError(f"{str(problem).rstrip('.?')}; or give a config.json or an ONNX file.")
    if size not in (None, found.size):
        raise UserError(f"'{text}' has a size of its own; leave the size out.")
    return _built(text, found.model_class, found.size, found.model_class, found.hub_id, found.config)


def _of_config(where: str, config: Mapping[str, Any]) -> ModelDescription:
    model_type = config.get("model_type")
    for name, kind in model_classes().items():
        if model_type in kind.transformers_model_types:
            return _built(where, name, CUSTOM_SIZE, name, None, config)
    if model_type in OTHER_TYPES:
        architecture, family = OTHER_TYPES[str(model_type)]
        return _built(where, None, None, architecture, None, config, family)
    known = sorted({*OTHER_TYPES, *(each for kind in model_classes().values() for each in kind.transformers_model_types)})
    raise UserError(
        f"'{where}' is a model of type '{model_type}', whose operators are not known by name; known: {', '.join(known)}. "
        "Export it to ONNX and give that file: any graph can be counted."
    )


def _built(
    name: str,
    model_class: str | None,
    size: str | None,
    architecture: str,
    hub_id: str | None,
    config: Mapping[str, Any],
    family: str | None = None,
) -> ModelDescription:
    config = {"model_type": architecture, **config}
    kind = registered(model_class)
    try:
        tape = trace_of(architecture, config, batch=1, sequence=8, new_tokens=1, precision="float32", mode="inference")
        shape = shape_of(architecture, config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as broken:
        raise UserError(f"The configuration of '{name}' lacks what its operators follow from: {broken!r}.") from broken
    parameters = sum(tape.parameters.values())
    known_family = family or (kind.family if kind else "unknown")
    return ModelDescription(
        name, model_class, size, known_family, hub_id, config, parameters, architecture=architecture, **shape
    )


def _of_graph(path: Path) -> ModelDescription:
    from .onnx_graph import parameters_of

    return ModelDescription(
        name=str(path),
        model_class=None,
        size=None,
        family="unknown",
        hub_id=None,
        config={},
        parameters=parameters_of(path),
        layers=0,
        hidden_size=0,
        heads=0,
        key_value_heads=0,
        head_size=0,
        vocabulary=0,
        architecture="onnx",
        generates=False,
        graph=path,
    )
