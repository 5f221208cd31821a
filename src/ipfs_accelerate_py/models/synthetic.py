"""Seeded random weights at a model's real shape, for speed where no trained weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .base import ModelClass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EMBEDDING_STD = 0.02
BIAS_STD = 0.02
NORM_STD = 0.1


def synthetic_model(model_class: ModelClass, arguments: Mapping[str, Any], seed: int) -> PreTrainedModel:
    """The model of this configuration with seeded weights, float32 on the CPU, in eval mode.

    transformers' own initialisation (standard deviation 0.02 everywhere) lets activations fade and scores of all classes be
    nearly equal, so that rounding alone would decide the arg-max. Here weight matrices have standard deviation 1/sqrt(fan in)
    (Glorot and Bengio, 2010), which keeps activations near 1 at any width. Token embeddings stay small beside the layers'
    output, otherwise a model with tied embeddings would repeat its input. Biases and norms are random, not 0 and 1,
    so that an engine that drops one is found out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class.build(model_class.config(arguments))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:  # Whisper's encoder positions are fixed sinusoids
                    _fill(model, name, parameter, generator)
    return model


def _fill(model: nn.Module, name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    module_name, _, kind = name.rpartition(".")
    module = model.get_submodule(module_name)
    mean, std = 0.0, EMBEDDING_STD
    if kind == "bias":
        std = BIAS_STD
    elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        std = parameter[0].numel() ** -0.5
    elif "Norm" in type(module).__name__:
        mean, std = 1.0, NORM_STD
    parameter.normal_(mean, std, generator=generator)
