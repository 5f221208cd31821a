"""CLIP: images and text as embeddings of one space (Radford et al., 2021, https://arxiv.org/abs/2103.00020).

Text i and image i of a batch are embedded independently of each other and of the rest, so a batch may hold unrelated ones. Which text
fits an image best follows from the embeddings afterwards.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.image import BICUBIC, CLIP_MEAN, CLIP_STD, as_image, example_images, pixel_values, ranked
from .processing.processor import Preprocessed, Processor, check_raw, learned_scale
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "projection_dim": 512,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
# TinyCLIP (Wu et al., 2023, https://arxiv.org/abs/2309.12314) has the exact GELU.
SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "hidden_act": "gelu"}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
LEGACY_END = 2  # eos_token_id of configurations from before transformers' fix: the end token is then the last of the vocabulary


class Clip(ModelClass):
    name = "clip"
    family = "multimodal"
    task = "image-text-embedding"
    least_training_batch = 2
    transformers_model_types = ("clip",)
    default_sequence_length = 77
    raw_inputs = ("text", "image")
    unused_weights = ("logit_scale",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "text_config": {**TEXT, **TINY, "vocab_size": 1000, "bos_token_id": 998, "eos_token_id": 999},
                "vision_config": {**VISION, **TINY, "image_size": 32, "patch_size": 8},
                "projection_dim": 32,
            },
        ),
        "small": Size(
            "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M",
            {
                "text_config": {**TEXT, **SMALL, "num_hidden_layers": 3},
                "vision_config": {**VISION, **SMALL, "num_hidden_layers": 10, "patch_size": 16},
                "projection_dim": 512,
            },
        ),
        "base": Size("openai/clip-vit-base-patch32", {"text_config": TEXT, "vision_config": VISION, "projection_dim": 512}),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import CLIPConfig

        return CLIPConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import CLIPModel

        return CLIPModel(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return int((arguments.get("text_config") or {}).get("max_position_embeddings", TEXT["max_position_embeddings"]))

    def inputs(self, config: Any, batch_size: int, sequence_length: int | None, seed: int) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask``, int64 [batch, sequence], each row from the start token to the end token, then padding;
        ``pixel_values`` float32 [batch, 3, height, width]."""
        text = copy.copy(config.text_config)
        text.name_or_path = config.name_or_path
        ids, lengths = token_ids(text, batch_size, sequence_length or self.default_sequence_length, seed, padded=True)
        start, end = start_and_end(text)
        ids[ids == end] = start
        ids[:, 0] = start
        ids[np.arange(batch_size), lengths - 1] = end
        mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        images = example_images(batch_size, config.vision_config.image_size, seed)
        return {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            "pixel_values": pixel_values(images, image_settings(config.vision_config.image_size)),
        }

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward

        dynamic = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
        dynamic["pixel_values"] = {0: "batch"}
        return {"model": ExportGraph(Forward(model, embed), dict(inputs), ("text_embeds", "image_embeds"), dynamic)}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """Any number of texts and any number of images. The shorter list is repeated to fill the batch, and the rest left out later."""
        batch = check_raw(raw, self.raw_inputs, self.name, paired=False)
        texts, values = batch["text"], batch["image"]
        text = config.text_config
        start, end = start_and_end(text)
        encoded = processor.tokenizer.encode(
            texts,
            max_length=text.max_position_embeddings,
            truncate=processor.truncate,
            pad_id=text.pad_token_id or 0,
            ends=((start,), (end,)),
        )
        size = config.vision_config.image_size
        pixels = pixel_values([as_image(value) for value in values], processor.settings(image_settings(size)), (size, size))
        rows = np.arange(max(len(texts), len(values)))
        arrays = {
            "input_ids": encoded.ids[rows % len(texts)],
            "attention_mask": encoded.mask[rows % len(texts)],
            "pixel_values": pixels[rows % len(values)],
        }
        return Preprocessed(arrays, encoded.notes, {"texts": texts, "images": len(values)})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``embeddings`` of each text and each image, length 1. With several texts also ``classifications``: for each image the texts
        as labels, best first, scored by the softmax of the scaled cosines."""
        texts = preprocessed.facts["texts"]
        text, image = outputs["text_embeds"][: len(texts)], outputs["image_embeds"][: preprocessed.facts["images"]]
        result: dict[str, Any] = {"embeddings": {"text": text, "image": image}}
        if len(texts) > 1:
            scale = math.exp(learned_scale(processor, "logit_scale", config.logit_scale_init_value))
            result["classifications"] = [ranked(row, texts) for row in scale * image @ text.T]
        return result

    def loss(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Contrastive: text i belongs to image i."""
        return model(**inputs, return_loss=True).loss


def start_and_end(text_config: Any) -> tuple[int, int]:
    """Ids of <|startoftext|> and <|endoftext|>."""
    if text_config.eos_token_id == LEGACY_END:
        return text_config.vocab_size - 2, text_config.vocab_size - 1
    return text_config.bos_token_id, text_config.eos_token_id


def image_settings(size: int) -> dict[str, Any]:
    """CLIP's published processing for square inputs of ``size`` pixels."""
    return {
        "size": {"shortest_edge": size},
        "default_to_square": False,
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }


def embed(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text and image embeddings [batch, projection] of length 1; ids and mask int64 [batch, sequence]."""
    text = model.text_projection(embed_text(model.text_model, input_ids, attention_mask))
    vision = model.vision_model
    image = model.visual_projection(vision.post_layernorm(vision_hidden(vision, pixel_values)[:, 0]))
    # Not torch's normalize: its guard against zeros is a Clip, which Firefox does not compile at float16, and none is needed.
    return text / text.norm(dim=-1, keepdim=True), image / image.norm(dim=-1, keepdim=True)


def embed_text(text: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Hidden state [batch, hidden] of the first end token of each row."""
    import torch

    from .modules import MASKED, attended, lookup, mask_bias

    weights = text.embeddings.position_embedding.weight
    length, vocabulary = input_ids.shape[1], text.config.vocab_size
    tokens = torch.arange(vocabulary, dtype=torch.int32, device=weights.device)
    positions = tokens[:length]
    seen = attended(attention_mask, weights.dtype)
    later = 1 - (positions[None, :] <= positions[:, None]).to(weights.dtype)  # [query, key], 1 where the key comes after
    bias = later[None, None] * MASKED + mask_bias(seen)
    hidden = text.embeddings.token_embedding(input_ids) + weights[:length]
    for layer in text.encoder.layers:
        hidden = layer(hidden, bias)
    hidden = text.final_layer_norm(hidden)
    # The row's first end token as a row of 0 and a single 1, without the 64-bit ArgMax: those with an end before them become 0.
    ends = lookup((tokens == start_and_end(text.config)[1]).to(weights.dtype), input_ids) * seen
    first = ends * torch.relu(1 - ends @ later)
    return (first[:, None, :] @ hidden)[:, 0]


def vision_hidden(vision: Any, pixel_values: torch.Tensor, layers: int | None = None) -> torch.Tensor:
    """Hidden states [batch, 1 + patches, hidden] after ``layers`` layers (all), of ``pixel_values`` [batch, 3, height, width]."""
    import torch

    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    first = embeddings.class_embedding.expand(pixel_values.shape[0], 1, -1)
    hidden = vision.pre_layrnorm(torch.cat([first, patches], 1) + embeddings.position_embedding.weight)
    for layer in vision.encoder.layers[:layers]:
        hidden = layer(hidden, None)
    return hidden
