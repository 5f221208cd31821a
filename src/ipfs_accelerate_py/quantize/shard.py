"""The tensors of one shard, quantised; with a text, each matrix on the inputs that the quantised ones before it give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import architecture
from .calibration import STAGES, LayerStream
from .formats import Format
from .plan import Plan
from .sources import Source
from .tensors import quantize_tensor

if TYPE_CHECKING:
    import torch

Read = Callable[[str], np.ndarray]


@dataclass
class Shard:
    """``arrays`` by name as they are stored; ``facts`` of each tensor for the manifest."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class ShardMaker:
    """Makes shards in the order of the forward pass. ``read_made`` reads a tensor of a shard that is made, dequantised."""

    source: Source
    plan: Plan
    solver: str
    device: str
    windows: np.ndarray | None  # int64 [windows, length], None without a text
    read_made: Read
    on_tensor: Callable[[str], None]
    _stream: LayerStream | None = None

    def make(self, names: Sequence[str]) -> Shard:
        """Quantise what the plan names, and take the rest as it is."""
        made = Shard()
        layer = architecture.layer_of(names[0])
        if self.windows is not None and layer is not None:
            self._calibrated_layer(layer, names, made)
        for name in names:
            if name not in made.facts:
                squares = None
                if self.windows is not None and architecture.role(name) == "head":
                    squares = self._passing.head_squares(self._read_norm(made), diagonal=self.solver != "gptq")
                self._add(name, made, squares)
        return made

    def skip(self, names: Sequence[str]) -> None:
        """Pass by a shard that is made already."""
        layer = architecture.layer_of(names[0])
        if self.windows is not None and layer is not None:
            self._passing.advance(self._passing.layer(layer, self.read_made))

    @property
    def _passing(self) -> LayerStream:
        if self._stream is None:
            assert self.windows is not None
            self._stream = LayerStream(self.source.config, self.windows, self.read_made, self.device)
        return self._stream

    def _calibrated_layer(self, layer: int, names: Sequence[str], made: Shard) -> None:
        import torch

        module = self._passing.layer(layer, self.source.read)
        modules = {path.rpartition(".")[2]: found for path, found in module.named_modules()}
        for stage in STAGES:
            squares = self._passing.squares(module, stage, diagonal=self.solver != "gptq")
            for name in names:
                role = architecture.role(name)
                if role is not None and role in stage:
                    decoded = self._add(name, made, squares[role])
                    modules[role].weight.data = torch.from_numpy(decoded).to(self.device)
        self._passing.advance(module)

    def _add(self, name: str, made: Shard, squares: torch.Tensor | None) -> np.ndarray:
        """Put a tensor into the shard; its decoded values."""
        self.on_tensor(name)
        values = self.source.read(name)
        form: Format | None = self.plan.formats.get(name)
        if form is None:
            made.arrays[name] = values
            made.facts[name] = {"shape": list(values.shape), "bytes": values.nbytes}
            return values
        quantized = quantize_tensor(name, values, form, self.solver, self.device, squares)
        made.arrays |= {f"{name}.{plane}": array for plane, array in quantized.matrix.planes().items()}
        made.facts[name] = {
            "shape": list(values.shape),
            "bits": form.bits,
            "group_size": form.group_size,
            "bytes": quantized.matrix.nbytes,
            "weight_error": quantized.weight_error,
            "output_error": quantized.output_error,
        }
        return quantized.matrix.dequantize()

    def _read_norm(self, made: Shard) -> Read:
        """The last norm may be in this very shard."""
        return lambda name: made.arrays[name] if name in made.arrays else self.read_made(name)
