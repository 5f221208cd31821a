"""What an error in each matrix costs the loss, from one pass forward and one back over a text: a Fisher information, by factors.

With targets drawn from the model's own distribution the expected rise of the loss by an error D of a matrix with inputs x and gradients g
at its outputs is half of E[(gᵀ D x)²]; taken as independent (Martens and Grosse, 2015, https://arxiv.org/abs/1503.05671) and each by
its diagonal, half of the sum of E[g_i²] D_ij² E[x_j²]. So errors of all matrices have one unit, nats a token, and can be added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import architecture
from .calibration import LayerStream
from .plan import matrices
from .sources import Source

if TYPE_CHECKING:
    import numpy as np
    import torch

TOKENS = 2048  # of the windows go back as well: means over that many hardly move with more
HEAD_TOKENS = 512  # at a time, as the logits of a large vocabulary are


@dataclass(frozen=True)
class Fisher:
    """``nats[name]``: what the loss of a token rises by if the matrix had a relative squared error of 1 (its outputs', on the text).

    ``inputs[name]`` float32 [columns]: how an error counts by its column, up to a factor: the mean square of each input. Of an
    embedding it is the mean square of the gradient; where it is the output matrix too, with both places' shares in one unit.
    """

    nats: dict[str, float]
    inputs: dict[str, torch.Tensor]


def fisher(
    source: Source,
    windows: np.ndarray,
    device: str,
    on_tensor: Callable[[str], None] = lambda name: None,
    seed: int = 0,
) -> Fisher:
    """Of float weights on ``windows`` int64 [windows, length]. One layer in memory, and the states at every layer of TOKENS tokens."""
    return _Pass(source, windows, device, on_tensor, seed).result()


class _Pass:
    def __init__(self, source: Source, windows: np.ndarray, device: str, on_tensor: Callable[[str], None], seed: int) -> None:
        import torch

        self.source, self.windows, self.device, self.on_tensor = source, windows, device, on_tensor
        self.generator = torch.Generator(device).manual_seed(seed)
        self.stream = LayerStream(source.config, windows, source.read, device)
        self.backward = max(1, TOKENS // windows.shape[1])  # windows
        self.nats: dict[str, float] = {}
        self.inputs: dict[str, torch.Tensor] = {}

    def result(self) -> Fisher:
        layers = range(int(self.source.config["num_hidden_layers"]))
        states = []
        for layer in layers:
            states.append(self.stream.hidden[: self.backward].clone())
            self.stream.advance(self.stream.layer(layer, self.source.read))
        squares = self.stream.head_squares(self.source.read, diagonal=True) / self.windows.size
        logit_energy, gradient = self._head(squares)
        for layer in reversed(layers):
            gradient = self._layer(layer, states.pop(), gradient)
        self._embedding(gradient.square().mean((0, 1)).to(self.device), squares * logit_energy)
        return Fisher(self.nats, self.inputs)

    def _head(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the output matrix: E‖g‖² of the logits, and the gradient by the states after the last layer, each token by itself."""
        import torch

        norm = self.stream.norm(self.source.read)
        name = "lm_head.weight" if "lm_head.weight" in matrices(self.source.config) else "model.embed_tokens.weight"
        weight = torch.from_numpy(self.source.read(name)).to(self.device)
        states = self.stream.hidden[: self.backward].clone()
        energy = torch.zeros(len(weight), device=self.device)
        parts = []
        for part in states.flatten(0, 1).split(HEAD_TOKENS):
            given = part.to(self.device).requires_grad_()
            with torch.enable_grad():
                normed = norm(given)
            chances = (normed.detach() @ weight.T).softmax(-1)
            drawn = torch.multinomial(chances, 1, generator=self.generator)
            slope = chances.scatter_add_(1, drawn, torch.full_like(drawn, -1, dtype=chances.dtype))
            energy += slope.square().sum(0)
            normed.backward(slope @ weight)
            parts.append(given.grad.cpu())
        energy /= states.shape[0] * states.shape[1]
        self._set(name, weight, inputs, energy)
        return energy.sum(), torch.cat(parts).view_as(states)

    def _layer(self, index: int, states: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient before the layer, from that behind it."""
        module = self.stream.layer(index, self.source.read)
        start = f"model.layers.{index}."
        linear = {
            f"{start}{path}.weight": part for path, part in module.named_modules() if architecture.role(f"{start}{path}.weight")
        }
        inputs: dict[str, torch.Tensor] = {}
        outputs: dict[str, torch.Tensor] = {}
        hooks = []
        for name, part in linear.items():
            hooks.append(part.register_forward_pre_hook(_adding(inputs, name)))
            hooks.append(part.register_full_backward_hook(_adding(outputs, name, place=2)))
        before = self.stream.gradient(module, states, gradient)
        for hook in hooks:
            hook.remove()
        tokens = states.shape[0] * states.shape[1]
        for name, part in linear.items():
            self._set(name, part.weight, inputs[name] / tokens, outputs[name] / tokens)
        return before

    def _embedding(self, by_column: torch.Tensor, head: torch.Tensor) -> None:
        """Its own cost, on top of that as an output matrix; every token counts as often as the text has it."""
        import torch

        name = "model.embed_tokens.weight"
        self.on_tensor(name)
        rows = torch.from_numpy(self.source.read(name)).to(self.device)
        seen = rows[torch.from_numpy(self.windows).to(self.device)]
        tied = name in self.nats
        self.nats[name] = self.nats.get(name, 0.0) + 0.5 * float((seen.square().mean((0, 1)) * by_column).sum())
        self.inputs[name] = head + by_column if tied else by_column

    def _set(self, name: str, weight: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        self.on_tensor(name)
        self.inputs[name] = inputs
        self.nats[name] = 0.5 * float(outputs @ (weight.square() @ inputs))


def _adding(found: dict[str, torch.Tensor], name: str, place: int = 1) -> Callable[..., None]:
    """A hook that adds the squares of what a module is given, argument ``place`` of the hook, to ``found[name]``, by feature."""

    def add(*arguments: Any) -> None:
        squares = arguments[place][0].detach().flatten(0, -2).float().square().sum(0)
        found[name] = found[name] + squares if name in found else squares

    return add
