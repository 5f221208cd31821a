"""The inputs of each matrix on a text, with one decoder layer in memory at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..models.causal import longest_sequence

if TYPE_CHECKING:
    import torch

Read = Callable[[str], "np.ndarray"]

SEQUENCE = 512  # tokens of a calibration window, at most
TOKENS = 32_768  # of the text, at most: what lies beyond changes little (the published method takes 128 windows of 2048)
LEAST_TOKENS = 512
BATCH_TOKENS = 4096
STAGES = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def windows(text: Path, folder: Path | None, config: Mapping[str, Any], most_tokens: int = TOKENS) -> np.ndarray:
    """int64 [windows, length]: the text by the model's own tokenizer, cut into windows spread evenly over it.

    UserError for a model without a tokenizer, a text that cannot be read, and one that is too short.
    """
    from tokenizers import Tokenizer

    if folder is None or not (folder / "tokenizer.json").is_file():
        raise UserError("A text calibrates a model only through its own tokenizer, and this one has no tokenizer.json.")
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise UserError(f"The text '{text}' cannot be read: {unreadable}.") from unreadable
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as broken:  # the library raises nothing narrower
        raise UserError(f"'{folder / 'tokenizer.json'}' is not a tokenizer: {broken}.") from broken
    ids = np.array(tokenizer.encode(content, add_special_tokens=False).ids, dtype=np.int64)
    if len(ids) and ids.max() >= config["vocab_size"]:
        raise UserError(f"The tokenizer in '{folder}' gives token {ids.max()}, and the model has {config['vocab_size']}.")
    length = min(SEQUENCE, longest_sequence(config))
    if len(ids) < max(LEAST_TOKENS, length):
        raise UserError(
            f"The text '{text}' has {len(ids)} tokens; calibrating takes at least {max(LEAST_TOKENS, length)}, better {TOKENS}."
        )
    whole = ids[: len(ids) // length * length].reshape(-1, length)
    most = max(1, most_tokens // length)
    return whole[np.linspace(0, len(whole) - 1, min(most, len(whole))).round().astype(int)]


class LayerStream:
    """Runs the windows of a text through a decoder, one layer at a time. ``read(name)`` gives the float32 weights of a tensor.

    ``hidden`` are the states [windows, length, hidden_size] at the layer that comes next; they stay on the CPU.
    """

    def __init__(self, config: Mapping[str, Any], ids: np.ndarray, read: Read, device: str, attention: str = "sdpa") -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        settings = AutoConfig.for_model(**config)
        settings._attn_implementation = attention
        with torch.device("meta"):
            self._model: Any = AutoModelForCausalLM.from_config(settings)
        self._rotary = type(self._model.model.rotary_emb)(config=settings).to(device)
        self.device = device
        self.hidden = torch.from_numpy(read("model.embed_tokens.weight"))[torch.from_numpy(ids)]

    def layer(self, index: int, read: Read) -> Any:
        """The decoder layer with its weights, on the device."""
        return self._filled(self._model.model.layers[index], f"model.layers.{index}.", read)

    def norm(self, read: Read) -> Any:
        """The norm after the last layer."""
        return self._filled(self._model.model.norm, "model.norm.", read)

    def _filled(self, module: Any, start: str, read: Read) -> Any:
        import torch

        module = copy.deepcopy(module)
        weights = {name: torch.from_numpy(read(start + name)) for name, _ in module.named_parameters()}
        module.load_state_dict(weights, assign=True)
        return module.to(self.device).eval().requires_grad_(False)

    def advance(self, layer: Any) -> None:
        """``hidden`` becomes the layer's output."""
        import torch

        self.hidden = torch.cat([output.cpu() for output in self._outputs(layer)])

    def squares(self, layer: Any, parts: Sequence[str], *, diagonal: bool) -> dict[str, torch.Tensor]:
        """The sum of x xᵀ over all inputs x of each of the layer's matrices that are named (``q_proj`` ...), or its diagonal.

        Parts of one stage share their input and get the same tensor.
        """
        found: dict[str, torch.Tensor] = {}
        leaders = [stage[0] for stage in STAGES if set(stage) & set(parts)]
        hooks = []
        for path, module in layer.named_modules():
            name = path.rpartition(".")[2]
            if name in leaders:
                hooks.append(module.register_forward_pre_hook(_summing(found, name, diagonal)))
        try:
            for _ in self._outputs(layer):
                pass
        finally:
            for hook in hooks:
                hook.remove()
        return {part: found[stage[0]] for stage in STAGES for part in stage if part in parts}

    def head_squares(self, read: Read, *, diagonal: bool) -> torch.Tensor:
        """The same of the output matrix: over the normed states after the last layer."""
        norm = self.norm(read)
        found: dict[str, torch.Tensor] = {}
        add = _summing(found, "head", diagonal)
        for part in self._batches():
            add(None, (norm(part),))
        return found["head"]

    def gradient(self, layer: Any, states: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """By the layer's input ``states`` [windows, length, hidden_size], given that by its output; both on the CPU."""
        import torch

        parts = []
        size = self._batch()
        with torch.enable_grad():
            for part, behind in zip(states.split(size), after.split(size), strict=True):
                given = part.to(self.device).requires_grad_()
                self._output(layer, given).backward(behind.to(self.device))
                assert given.grad is not None
                parts.append(given.grad.cpu())
        return torch.cat(parts)

    def _batch(self) -> int:
        """Windows at a time."""
        return max(1, BATCH_TOKENS // self.hidden.shape[1])

    def _batches(self) -> Iterator[torch.Tensor]:
        for part in self.hidden.split(self._batch()):
            yield part.to(self.device)

    def _outputs(self, layer: Any) -> Iterator[torch.Tensor]:
        import torch

        with torch.inference_mode():
            for part in self._batches():
                yield self._output(layer, part)

    def _output(self, layer: Any, part: torch.Tensor) -> torch.Tensor:
        import torch

        positions = torch.arange(part.shape[1], device=self.device)[None]
        # Without a mask transformers' sdpa attention is causal.
        found: torch.Tensor = layer(part, attention_mask=None, position_embeddings=self._rotary(part, positions))
        return found


def _summing(found: dict[str, torch.Tensor], name: str, diagonal: bool) -> Callable[[Any, tuple[Any, ...]], None]:
    """A hook that adds the squares of a module's input to ``found[name]``."""

    def add(_: Any, inputs: tuple[Any, ...]) -> None:
        flat = inputs[0].flatten(0, -2).float()
        squares = (flat * flat).sum(0) if diagonal else flat.T @ flat
        found[name] = found[name] + squares if name in found else squares

    return add
