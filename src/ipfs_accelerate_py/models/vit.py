"""ViT image classification (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import ExportGraph, ModelClass, Size

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

COMMON = {
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "num_labels": 1000,
}


class ViT(ModelClass):
    name = "vit"
    family = "vision"
    task = "image-classification"
    transformers_model_types = ("vit",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                **COMMON,
                "image_size": 32,
                "patch_size": 8,
                "num_labels": 10,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
            },
        ),
        "small": Size(
            "WinKawaks/vit-tiny-patch16-224",
            {**COMMON, "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
        ),
        "base": Size(
            "google/vit-base-patch16-224",
            {**COMMON, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import ViTConfig

        return ViTConfig(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import ViTForImageClassification

        return ViTForImageClassification(config).eval()

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``pixel_values`` float32 [batch, 3, height, width] in [-1, 1], as ViT's processor scales an image (mean and std 0.5).

        The image is seeded: a smooth colour gradient with noise, in 8-bit steps as a decoded photograph has.
        """
        generator = np.random.default_rng(seed)
        size = config.image_size
        ramp = np.linspace(0, 1, size)
        corners = generator.random((batch_size, config.num_channels, 2, 2))
        weights = np.stack([1 - ramp, ramp])
        smooth = np.einsum("bcij,iy,jx->bcyx", corners, weights, weights)
        noisy = smooth + generator.normal(0, 0.1, smooth.shape)
        pixels = np.clip(np.round(noisy * 255), 0, 255)
        return {"pixel_values": ((pixels / 255 - 0.5) / 0.5).astype(np.float32)}

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward

        return {"model": ExportGraph(Forward(model, classify), dict(inputs), ("logits",), {"pixel_values": {0: "batch"}})}


def classify(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Logits [batch, labels] of ``pixel_values`` [batch, channels, height, width]."""
    return model(pixel_values).logits
