"""How much each matrix loses at each width: on the calibration inputs where there is a text, otherwise on its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import architecture
from .calibration import LayerStream
from .plan import matrices
from .sources import Source
from .tensors import squared_errors

if TYPE_CHECKING:
    import numpy as np
    import torch


def measure(
    source: Source,
    group_size: int,
    widths: tuple[int, ...],
    windows: np.ndarray | None,
    device: str,
    on_tensor: Callable[[str], None],
) -> dict[str, dict[int, float]]:
    """The relative squared error of each matrix by bits. ``windows`` as ``calibration.windows`` gives them. One pass over the model,
    one layer in memory; ``on_tensor`` hears the name of each matrix before it is measured."""
    found: dict[str, dict[int, float]] = {}
    stream = None if windows is None else LayerStream(source.config, windows, source.read, device)

    def one(name: str, diagonal: torch.Tensor | None) -> None:
        on_tensor(name)
        found[name] = squared_errors(source.read(name), group_size, widths, device, diagonal)

    names = list(matrices(source.config))
    for shard in architecture.shards(dict.fromkeys(names)).values():
        layer = architecture.layer_of(shard[0])
        diagonals: dict[str, torch.Tensor] = {}
        module = None
        if stream is not None and layer is not None:
            module = stream.layer(layer, source.read)
            diagonals = stream.squares(module, [architecture.role(name) or "" for name in shard], diagonal=True)
        for name in shard:
            role = architecture.role(name) or ""
            if role == "head" and stream is not None:
                diagonals["head"] = stream.head_squares(source.read, diagonal=True)
            one(name, diagonals.get(role))
        if stream is not None and module is not None:
            stream.advance(module)
    return found
