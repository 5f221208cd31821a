"""How much each matrix loses at each width: in nats where there is a text, otherwise by its weights and what is published."""

from __future__ import annotations

from collections.abc import Callable

from .fisher import Fisher
from .plan import matrices, prior
from .sources import Source
from .tensors import squared_errors


def measure(
    source: Source,
    group_size: int,
    widths: tuple[int, ...],
    fisher: Fisher | None,
    device: str,
    on_tensor: Callable[[str], None],
) -> dict[str, dict[int, float]]:
    """What the loss is expected to rise by for each matrix by bits, nats a token; without ``fisher`` its relative squared error times
    ``plan.prior``, in no unit. One matrix in memory; ``on_tensor`` hears its name before it is measured."""
    layers = int(source.config["num_hidden_layers"])
    found: dict[str, dict[int, float]] = {}
    for name in matrices(source.config):
        on_tensor(name)
        cost, inputs = (prior(name, layers), None) if fisher is None else (fisher.nats[name], fisher.inputs[name])
        errors = squared_errors(source.read(name), group_size, widths, device, inputs)
        found[name] = {bits: cost * error for bits, error in errors.items()}
    return found
