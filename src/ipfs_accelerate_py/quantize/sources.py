"""Where float weights come from, one tensor at a time: a folder of safetensors, or seeded synthetic weights at a published shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import UserError
from ..models.loading import read_config, weight_files
from ..models.registry import ModelReference, model_classes
from . import architecture, safetensors_file

if TYPE_CHECKING:
    from ..models.synthetic import SyntheticTensors


class Source(Protocol):
    """``config`` as in config.json; ``origin`` as Workload.origin; ``folder`` of the tokenizer, None where there is none."""

    config: Mapping[str, Any]
    origin: str
    folder: Path | None

    def read(self, name: str) -> np.ndarray:
        """float32 of the tensor's shape; UserError naming the tensor where it holds NaN or infinity."""
        ...


class FolderSource:
    """A transformers folder. Only the tensor that is asked for is read. UserError for an unsupported or incomplete one."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.config: Mapping[str, Any] = read_config(folder)
        self.origin = origin
        self.folder: Path | None = folder
        architecture.check_supported(self.config, str(folder))
        self._entries: dict[str, safetensors_file.Entry] = {}
        for file in weight_files(folder):
            self._entries |= safetensors_file.entries(file)
        architecture.check_tensors(self.config, {name: entry.shape for name, entry in self._entries.items()}, str(folder))

    def read(self, name: str) -> np.ndarray:
        return checked(name, safetensors_file.read_float(name, self._entries[name]))


class SyntheticSource:
    """The weights of ``models.synthetic.synthetic_model``, made when asked for: a 7B model needs the memory of one tensor."""

    def __init__(self, model_class: str, size: str, origin: str) -> None:
        kind = model_classes()[model_class]
        if model_class not in architecture.MODEL_TYPES:
            architecture.check_supported({"model_type": kind.transformers_model_types[0]}, model_class)
        arguments = kind.sizes[size].config
        self.config: Mapping[str, Any] = {"model_type": model_class, **arguments}
        self.origin = origin
        self.folder: Path | None = None
        self._tensors = self._make(model_class, arguments, int(origin.removeprefix("synthetic:")))

    @staticmethod
    def _make(model_class: str, arguments: Mapping[str, Any], seed: int) -> SyntheticTensors:
        from ..models.synthetic import SyntheticTensors

        return SyntheticTensors(model_classes()[model_class], arguments, seed)

    def read(self, name: str) -> np.ndarray:
        return checked(name, self._tensors.read(name).numpy())


def open_source(reference: ModelReference) -> Source:
    """The weights of a resolved model; a hub model is fetched. UserError where low-bit weights are not made for its kind."""
    if reference.weights == "synthetic":
        return SyntheticSource(reference.model_class, reference.size, reference.origin)
    if reference.path is not None:
        return FolderSource(reference.path, reference.origin)
    from ..models.hub import hub_folder

    return FolderSource(hub_folder(reference.origin.removeprefix("hub:")), reference.origin)


def checked(name: str, values: np.ndarray) -> np.ndarray:
    """The values; UserError where one is not a finite number."""
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        place = [int(index) for index in np.argwhere(~np.isfinite(values))[0]]
        raise UserError(
            f"Tensor '{name}' has {bad} values that are NaN or infinite, the first at {place}: the weights are damaged; fetch them again."
        )
    return values
