"""ViT image classification (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.image import BILINEAR, HALF, as_image, example_images, pixel_values, ranked
from .processing.processor import Preprocessed, Processor, check_raw

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
TOP = 5  # classes in a result


class ViT(ModelClass):
    name = "vit"
    family = "vision"
    task = "image-classification"
    transformers_model_types = ("vit",)
    raw_inputs = ("image",)
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

    def inputs(self, config: Any, batch_size: int, sequence_length: int | None, seed: int) -> dict[str, np.ndarray]:
        """``pixel_values`` float32 [batch, 3, height, width] in [-1, 1]."""
        settings = image_settings(config.image_size)
        images = example_images(batch_size, (settings["size"]["height"], settings["size"]["width"]), seed)
        return {"pixel_values": pixel_values(images, settings)}

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward

        return {"model": ExportGraph(Forward(model, classify), dict(inputs), ("logits",), {"pixel_values": {0: "batch"}})}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        images = [as_image(value) for value in check_raw(raw, self.raw_inputs, self.name)["image"]]
        settings = image_settings(config.image_size)
        expected = settings["size"]["height"], settings["size"]["width"]
        pixels = pixel_values(images, processor.settings(settings), expected)
        return Preprocessed({"pixel_values": pixels})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``classifications``: for each image its five likeliest labels, best first, with their probabilities."""
        labels = {int(index): label for index, label in config.id2label.items()}
        return {"classifications": [ranked(row, labels, TOP) for row in outputs["logits"]]}

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy, in nats. Image i of the batch is of class i."""
        import torch

        pixels = inputs["pixel_values"]
        labels = torch.arange(len(pixels), device=pixels.device) % model.config.num_labels
        return model(pixel_values=pixels, labels=labels).loss


def image_settings(size: int | Sequence[int]) -> dict[str, Any]:
    """ViT's published processing for inputs of ``size`` pixels, the side of a square or [height, width]: stretched to it, scaled to
    [-1, 1]."""
    height, width = (size, size) if isinstance(size, int) else size
    return {"size": {"height": height, "width": width}, "resample": BILINEAR, "image_mean": HALF, "image_std": HALF}


def classify(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Logits [batch, labels] of ``pixel_values`` [batch, channels, height, width]."""
    return model(pixel_values).logits
