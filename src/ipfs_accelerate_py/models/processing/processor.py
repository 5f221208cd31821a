"""What stands between a person's inputs and a model's arrays: the tokenizer and the settings that a model's folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, nearest
from ...lazy_numpy import np
from ..loading import read_json

if TYPE_CHECKING:
    from .text import TextTokenizer

PARTS = ("image_processor", "video_processor", "feature_extractor")  # of processor_config.json; a model has one of them


@dataclass(frozen=True)
class Preprocessed:
    """``arrays`` as ``ModelClass.inputs`` gives them. ``notes`` says what was corrected on the way (resampled, truncated, padded), a
    sentence each. ``facts`` is what postprocessing needs of the original: the sizes of images, say."""

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Processor:
    """The processing files of a model: of its ``folder`` where it has them, otherwise the class's published defaults.

    ``vocabulary`` is the model's number of tokens, for the synthetic tokenizer that stands in where the folder has none. With
    ``truncate`` a text that is too long for the model is cut, with a note, where it would be refused. With ``recordings`` the classes
    whose features the GPU of a page can make (web/audio_front_end.py) give the recordings in their place.
    """

    def __init__(
        self, folder: Path | None, vocabulary: int | None = None, truncate: bool = False, *, recordings: bool = False
    ) -> None:
        self.folder = folder
        self.vocabulary = vocabulary
        self.truncate = truncate
        self.recordings = recordings

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        from .text import load_tokenizer

        return load_tokenizer(self.folder, self.vocabulary)

    def settings(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """What the folder has over the class's ``defaults``: a part of ``processor_config.json``, where transformers 5 saves a processor
        as one file, otherwise ``preprocessor_config.json``. A null leaves the default, as in transformers."""
        return {**defaults, **{name: value for name, value in self._stored().items() if value is not None}}

    def _stored(self) -> dict[str, Any]:
        if self.folder is None:
            return {}
        if (path := self.folder / "processor_config.json").is_file():
            whole = read_json(path)
            for name in PARTS:
                if isinstance(whole.get(name), dict):
                    return dict(whole[name])
        path = self.folder / "preprocessor_config.json"
        return read_json(path) if path.is_file() else {}

    def end_tokens(self, configured: int | Sequence[int] | None) -> set[int]:
        """Ids that end an answer: the configuration's ``eos_token_id``, and that of the folder's generation_config.json, which for a
        chat model often has more."""
        ends = _ids(configured)
        path = self.folder / "generation_config.json" if self.folder else None
        if path is not None and path.is_file():
            try:
                ends |= _ids(read_json(path).get("eos_token_id"))
            except (TypeError, ValueError) as broken:
                raise UserError(f"eos_token_id of '{path}' is neither a token id nor a list of them.") from broken
        return ends


def _ids(value: Any) -> set[int]:
    return set() if value is None else {int(token) for token in ([value] if isinstance(value, int) else value)}


def learned_scale(processor: Processor, name: str, initial: float) -> float:
    """A scalar parameter that only postprocessing needs, from the weights of the model's folder; ``initial`` where there are none."""
    if processor.folder is not None:
        from safetensors import safe_open

        for file in sorted(processor.folder.glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                if name in tensors.keys():  # noqa: SIM118, it is no dictionary
                    return tensors.get_tensor(name).item()
    return initial


def whole_number(settings: Mapping[str, Any], name: str, allowed: range) -> int:
    """The setting ``name``; UserError where it is not a whole number of the ``allowed`` ones."""
    value = settings[name]
    whole = (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    if not whole or int(value) not in allowed:
        raise UserError(
            f"The processing setting {name} is a whole number from {allowed[0]:,} to {allowed[-1]:,}, not {value!r}: "
            "correct the model's preprocessor_config.json."
        )
    return int(value)


def check_raw(raw: Mapping[str, Any], wanted: tuple[str, ...], model_class: str, paired: bool = True) -> dict[str, list[Any]]:
    """Each wanted input as a list, the batch. UserError for one that is missing, unknown or empty, and where items are ``paired``, one of
    each kind belonging together, for lists of different lengths."""
    for name in raw:
        if name not in wanted:
            raise nearest(name, wanted, f"input of {model_class}")
    batch: dict[str, list[Any]] = {}
    for name in wanted:
        if name not in raw:
            raise UserError(f"{model_class} needs {' and '.join(wanted)}; {name} is missing.")
        value = raw[name]
        batch[name] = list(value) if isinstance(value, list | tuple) else [value]
        if not batch[name]:
            raise UserError(f"The batch of {name} is empty: give at least one.")
    lengths = {name: len(values) for name, values in batch.items()}
    if paired and len(set(lengths.values())) > 1:
        counts = " and ".join(f"{count} of {name}" for name, count in lengths.items())
        raise UserError(f"The inputs of a batch belong together, one of each kind an item: {counts} were given.")
    return batch
