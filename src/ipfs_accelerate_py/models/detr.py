"""DETR object detection with a ResNet backbone (Carion et al., 2020, https://arxiv.org/abs/2005.12872).

The input has a fixed size, as WebNN needs: for the published model 800 x 1066 pixels, which is what DETR's own processor makes of the
usual 4:3 landscape photograph. An image of another aspect ratio is stretched to it, with a note; no image is padded, so there is no mask,
and the position embedding is a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.image import BILINEAR, IMAGENET_MEAN, IMAGENET_STD, as_image, check_scores, example_images, pixel_values
from .processing.processor import Preprocessed, Processor, check_raw

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

PUBLISHED_SIZE = (800, 1066)  # height, width
LEAST_SCORE = 0.5  # which a detection has to exceed, as in transformers' pipeline


class Detr(ModelClass):
    name = "detr"
    family = "vision"
    task = "object-detection"
    transformers_model_types = ("detr",)
    raw_inputs = ("image",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "image_size": [64, 64],
                "num_labels": 10,
                "num_queries": 10,
                "d_model": 32,
                **{f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in (("layers", 2), ("ffn_dim", 64))},
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "backbone_config": {
                    "model_type": "resnet",
                    "embedding_size": 16,
                    "hidden_sizes": [32, 32, 64, 64],
                    "depths": [1, 1, 1, 1],
                    "out_features": ["stage4"],
                },
            },
        ),
        "base": Size(
            "facebook/detr-resnet-50@no_timm",
            {
                "num_labels": 91,
                "num_queries": 100,
                "d_model": 256,
                **{f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in (("layers", 6), ("ffn_dim", 2048))},
                "encoder_attention_heads": 8,
                "decoder_attention_heads": 8,
                "backbone_config": {
                    "model_type": "resnet",
                    "embedding_size": 64,
                    "hidden_sizes": [256, 512, 1024, 2048],
                    "depths": [3, 4, 6, 3],
                    "out_features": ["stage4"],
                },
            },
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import DetrConfig

        return DetrConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        """UserError for a backbone of the timm library, which the published model's main revision has."""
        import torch
        from transformers import DetrForObjectDetection

        if config.backbone_config.model_type != "resnet":
            raise UserError(
                f"This DETR has a backbone of type '{config.backbone_config.model_type}'; take a revision with transformers' own "
                f"ResNet, such as {self.sizes['base'].hub_id}."
            )
        model = DetrForObjectDetection(config).eval()
        model.model.unfreeze_backbone()  # transformers freezes it whole, and only what is trained gets synthetic weights
        with torch.no_grad():
            for name, module in model.model.backbone.named_modules():
                if hasattr(module, "running_var"):
                    _set_frozen_norm(module, last_of_block=name.endswith("layer.2.normalization"))
        return model

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``pixel_values`` float32 [batch, 3, height, width]."""
        size = input_size(config)
        return {"pixel_values": pixel_values(example_images(batch_size, size, seed), image_settings(size))}

    def graphs(self, model: Any, inputs: Mapping[str, np.ndarray], new_tokens: int | None) -> dict[str, ExportGraph]:
        from .modules import Forward

        forward = Forward(model, detect)
        # The backbone has no attention, and refuses to have its kind set, as preparing does for the whole model.
        model.model.backbone.model._supports_sdpa = True
        model.register_buffer("positions", position_embedding(model), persistent=False)
        return {"model": ExportGraph(forward, dict(inputs), ("logits", "pred_boxes"), {"pixel_values": {0: "batch"}})}

    def preprocess(self, config: PretrainedConfig, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        images = [as_image(value) for value in check_raw(raw, self.raw_inputs, self.name)["image"]]
        height, width = size = input_size(config)
        notes = tuple(
            f"Image {number} of {image.shape[1]} x {image.shape[0]} pixels was stretched to the model's {width} x {height}."
            for number, image in enumerate(images, 1)
            if abs(image.shape[1] * height / image.shape[0] - width) > 1
        )
        settings = processor.settings(image_settings(size)) | {"size": {"height": height, "width": width}}
        sizes = [image.shape[:2] for image in images]
        return Preprocessed({"pixel_values": pixel_values(images, settings, size)}, notes, {"sizes": sizes})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``detections``: for each image its objects of a score above 0.5, best first. ``box`` is in pixels of the original."""
        check_scores(outputs["logits"], outputs["pred_boxes"])
        logits = outputs["logits"].astype(np.float64)
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities = (exponentials / exponentials.sum(-1, keepdims=True))[:, :, :-1]  # the last class is "no object"
        found = []
        for scores, boxes, (height, width) in zip(
            probabilities, outputs["pred_boxes"], preprocessed.facts["sizes"], strict=True
        ):
            best, labels = scores.max(-1), scores.argmax(-1)
            queries = [query for query in np.argsort(-best, kind="stable").tolist() if best[query] > LEAST_SCORE]
            found.append(
                [
                    {
                        "label": config.id2label[int(labels[query])],
                        "score": float(best[query]),
                        "box": corners(boxes[query], height, width),
                    }
                    for query in queries
                ]
            )
        return {"detections": found}

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """DETR's bipartite matching loss on two objects an image, at fixed places and of classes that differ from image to image."""
        import torch

        pixels = inputs["pixel_values"]
        boxes = torch.tensor([[0.3, 0.4, 0.4, 0.5], [0.7, 0.6, 0.3, 0.2]], dtype=pixels.dtype, device=pixels.device)
        classes = torch.arange(2 * len(pixels), device=pixels.device).view(-1, 2) % model.config.num_labels
        return model(pixel_values=pixels, labels=[{"class_labels": row, "boxes": boxes} for row in classes]).loss


def input_size(config: Any) -> tuple[int, int]:
    """Height and width in pixels. A DETR configuration has none; ours for tests add one."""
    height, width = getattr(config, "image_size", PUBLISHED_SIZE)
    return height, width


def image_settings(size: tuple[int, int]) -> dict[str, Any]:
    """DETR's published processing, at a fixed size (height, width)."""
    return {
        "size": {"height": size[0], "width": size[1]},
        "resample": BILINEAR,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }


def corners(box: np.ndarray, height: int, width: int) -> dict[str, float]:
    """Corners in pixels of a box (centre x, centre y, width, height) in shares of the image."""
    x, y, w, h = box.astype(np.float64).tolist()
    return {
        "xmin": (x - w / 2) * width,
        "ymin": (y - h / 2) * height,
        "xmax": (x + w / 2) * width,
        "ymax": (y + h / 2) * height,
    }


def _set_frozen_norm(norm: Any, last_of_block: bool) -> None:
    """Statistics unlike 0 and 1, which an engine could leave out unseen. At the end of a residual block the scale is small: with 1 each
    block would double the variance, and with trained weights it does not."""
    import torch

    ripple = (torch.arange(len(norm.weight)) % 7 - 3) / 30  # -0.1 to 0.1
    norm.weight.copy_((0.25 if last_of_block else 1.0) + ripple)
    norm.bias.copy_(ripple.roll(1))
    norm.running_mean.copy_(ripple.roll(2))
    norm.running_var.copy_(1 + ripple.roll(3))


def position_embedding(model: Any) -> torch.Tensor:
    """Position embedding [1, height * width, hidden] of the backbone's feature map for unpadded images of the fixed size."""
    height, width = input_size(model.config)
    for _ in range(5):  # the stem and three stages halve, the stem twice
        height, width = (height + 1) // 2, (width + 1) // 2
    weight = model.class_labels_classifier.weight
    embedding = model.model.position_embedding(shape=(1, 0, height, width), device=weight.device, dtype=weight.dtype)
    return embedding.detach().flatten(2).transpose(1, 2).contiguous()


def detect(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits [batch, queries, classes + 1] and boxes [batch, queries, 4] (centre and size, in shares of the image)."""
    import torch

    core = model.model
    features = core.backbone.model(pixel_values).feature_maps[-1]
    memory = core.input_projection(features).flatten(2).transpose(1, 2)
    for layer in core.encoder.layers:
        memory = layer(memory, None, spatial_position_embeddings=model.positions)
    queries = core.query_position_embeddings.weight[None].expand(pixel_values.shape[0], -1, -1)
    hidden = torch.zeros_like(queries)
    for layer in core.decoder.layers:
        hidden = layer(hidden, None, model.positions, queries, memory)
    hidden = core.decoder.layernorm(hidden)
    return model.class_labels_classifier(hidden), model.bbox_predictor(hidden).sigmoid()
