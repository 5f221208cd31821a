"""Seeded random weights at a model's real shape, for speed where no trained weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .base import ModelClass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EMBEDDING_STD = 0.02
BIAS_STD = 0.02
NORM_STD = 0.1
POOL = 2**22 - 3  # prime, so that no two rows of a matrix, and no two layers, start at the same place of the pool
RANDOM = frozenset(
    ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_")
)


def synthetic_model(
    model_class: ModelClass,
    arguments: Mapping[str, Any],
    seed: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """The model of this configuration with seeded weights, in eval mode, made where it will run: seven billion parameters take
    seconds and no memory but their own. The weights are the same on every device, and at ``dtype`` they are float32's, rounded.

    transformers' own initialisation (standard deviation 0.02 everywhere) lets activations fade and scores of all classes be
    nearly equal, so that rounding alone would decide the arg-max. Here weight matrices have standard deviation 1/sqrt(fan in)
    (Glorot and Bengio, 2010), which keeps activations near 1 at any width. Token embeddings stay small beside the layers'
    output, otherwise a model with tied embeddings would repeat its input. Biases and norms are random, not 0 and 1,
    so that an engine that drops one is found out.

    One draw an element would take minutes for the largest models: the weights run through a pool of ``POOL`` draws (of all there
    are, in a model that has fewer) again and again. Buffers are float32, except the persistent ones, as transformers has them.
    """
    model = _unfilled(model_class, arguments, device, dtype)
    parameters = _filled(model)
    pool = _pool(parameters, seed).to(device)
    start = 0
    with torch.no_grad():
        for name, parameter in parameters:
            mean, std = _distribution(model, name, parameter)
            start = _fill(parameter.view(-1), pool, start, mean, std)
    return model


class SyntheticTensors:
    """The parameters of ``synthetic_model`` on the CPU in float32, one at a time: without the memory of the whole model."""

    def __init__(self, model_class: ModelClass, arguments: Mapping[str, Any], seed: int) -> None:
        model = _unfilled(model_class, arguments, "meta", torch.float32)
        parameters = _filled(model)
        self._pool = _pool(parameters, seed)
        self._places: dict[str, tuple[torch.Size, int, float, float]] = {}
        start = 0
        for name, parameter in parameters:
            self._places[name] = (parameter.shape, start, *_distribution(model, name, parameter))
            start = (start + parameter.numel()) % len(self._pool)

    def read(self, name: str) -> torch.Tensor:
        """float32 of the parameter's shape; KeyError for a name that the model does not have."""
        shape, start, mean, std = self._places[name]
        flat = torch.empty(shape.numel())
        _fill(flat, self._pool, start, mean, std)
        return flat.view(shape)


def _filled(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are drawn. One that is not trained has a value of its own: Whisper's encoder positions are sinusoids."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _pool(parameters: list[tuple[str, nn.Parameter]], seed: int) -> torch.Tensor:
    size = min(POOL, sum(parameter.numel() for _, parameter in parameters))
    return torch.empty(size).normal_(generator=torch.Generator().manual_seed(seed))


class _WithoutDraws(TorchFunctionMode):
    """Random initialisations do nothing (what they would draw is overwritten); all others, such as sinusoids, are made."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", None) in RANDOM:
            tensor = args[0] if args else kwargs["tensor"]
            tensor.detach().zero_()  # not what was in memory: truncated draws are repeated until all are in their range
            return tensor
        return function(*args, **(kwargs or {}))


def _unfilled(model_class: ModelClass, arguments: Mapping[str, Any], device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Built on the device at ``dtype``, as transformers builds a model that it loads."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device), _WithoutDraws():
            return model_class.build(model_class.config(arguments))
    finally:
        torch.set_default_dtype(default)


def _distribution(model: nn.Module, name: str, parameter: nn.Parameter) -> tuple[float, float]:
    """Mean and standard deviation of a parameter."""
    module_name, _, kind = name.rpartition(".")
    module = model.get_submodule(module_name)
    if kind == "bias":
        return 0.0, BIAS_STD
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return 0.0, parameter[0].numel() ** -0.5
    if "Norm" in type(module).__name__:
        return 1.0, NORM_STD
    if kind == "original0":
        return 1.0, NORM_STD  # the lengths of a weight norm
    if "query_position" in module_name:
        return 0.0, 4.0  # all that tells DETR's queries apart: so large that each attends to places of its own
    return 0.0, EMBEDDING_STD


def _fill(flat: torch.Tensor, pool: torch.Tensor, start: int, mean: float, std: float) -> int:
    """The next elements of the pool, scaled; where the one after them is. Product and sum apart, so that no device fuses them."""
    done = 0
    while done < flat.numel():
        piece = pool[start : start + flat.numel() - done]
        values = piece * std
        flat[done : done + piece.numel()] = values + mean if mean else values
        done += piece.numel()
        start = (start + piece.numel()) % pool.numel()
    return start
