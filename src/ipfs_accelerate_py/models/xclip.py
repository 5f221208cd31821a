"""X-CLIP video-text embeddings (Ni et al., 2022, https://arxiv.org/abs/2208.02816).

An item is a video with one text. The text's embedding is changed by a prompt that the model makes from the video, so it belongs to this
pair alone; a video with several texts becomes as many items.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .clip import embed_text, image_settings, start_and_end
from .processing.image import BILINEAR, IMAGENET_MEAN, IMAGENET_STD, pixel_values, ranked
from .processing.processor import Preprocessed, Processor, check_raw, learned_scale
from .processing.video import as_frames, example_videos, videos
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

TEXT = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 2,
}
VISION = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


class XClip(ModelClass):
    name = "xclip"
    family = "multimodal"
    task = "video-text-embedding"
    least_training_batch = 2
    transformers_model_types = ("xclip",)
    default_sequence_length = 77
    raw_inputs = ("text", "video")
    unused_weights = ("logit_scale",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "projection_dim": 32,
                "prompt_layers": 1,
                "prompt_num_attention_heads": 4,
                "text_config": {
                    **TEXT,
                    "vocab_size": 1000,
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                },
                "vision_config": {
                    **VISION,
                    "image_size": 32,
                    "patch_size": 16,
                    "num_frames": 4,
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "mit_hidden_size": 32,
                    "mit_intermediate_size": 64,
                    "mit_num_hidden_layers": 1,
                    "mit_num_attention_heads": 4,
                },
            },
        ),
        "base": Size(
            "microsoft/xclip-base-patch32",
            {
                "projection_dim": 512,
                "prompt_layers": 2,
                "prompt_num_attention_heads": 8,
                "text_config": {
                    **TEXT,
                    "hidden_size": 512,
                    "intermediate_size": 2048,
                    "num_hidden_layers": 12,
                    "num_attention_heads": 8,
                },
                "vision_config": {
                    **VISION,
                    "image_size": 224,
                    "patch_size": 32,
                    "num_frames": 8,
                    "hidden_size": 768,
                    "intermediate_size": 3072,
                    "num_hidden_layers": 12,
                    "num_attention_heads": 12,
                    "mit_hidden_size": 512,
                    "mit_intermediate_size": 2048,
                    "mit_num_hidden_layers": 1,
                    "mit_num_attention_heads": 8,
                },
            },
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import XCLIPConfig

        return XCLIPConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import XCLIPModel

        return XCLIPModel(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return int((arguments.get("text_config") or {}).get("max_position_embeddings", TEXT["max_position_embeddings"]))

    def inputs(self, config: Any, batch_size: int, sequence_length: int | None, seed: int) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask``, int64 [batch, sequence], each row from the start token to the end token, then padding;
        ``pixel_values`` float32 [batch, frames, 3, height, width]."""
        text, vision = copy.copy(config.text_config), config.vision_config
        text.name_or_path = config.name_or_path
        ids, lengths = token_ids(text, batch_size, sequence_length or self.default_sequence_length, seed, padded=True)
        start, end = start_and_end(text)
        ids[ids == end] = start
        ids[:, 0] = start
        ids[np.arange(batch_size), lengths - 1] = end
        mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        frames = example_videos(batch_size, vision.num_frames, vision.image_size, seed)
        return {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            "pixel_values": video_pixels(frames, frame_settings(vision.image_size), vision.image_size),
        }

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward

        dynamic = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
        dynamic["pixel_values"] = {0: "batch"}
        return {"model": ExportGraph(Forward(model, embed), dict(inputs), ("text_embeds", "video_embeds"), dynamic)}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """``video``: frames (images) in a list or an array, or a list of videos; ``text``: for each video a text or a list of them.

        A video of fewer frames than the model takes is refused, unless the folder's preprocessor_config.json says ``repeat_frames``.
        """
        raw = dict(raw)
        if "video" in raw:
            raw["video"] = videos(raw["video"])
            if len(raw["video"]) == 1 and isinstance(raw.get("text"), list | tuple) and len(raw["text"]) > 1:
                raw["text"] = [raw["text"]]
        batch = check_raw(raw, self.raw_inputs, self.name)
        labels = [list(text) if isinstance(text, list | tuple) else [text] for text in batch["text"]]
        if not all(labels):
            raise UserError(f"Video {labels.index([]) + 1} has no text: give at least one for each video.")
        text, vision = config.text_config, config.vision_config
        settings = processor.settings({**frame_settings(vision.image_size), "repeat_frames": False})
        loaded = [
            as_frames(video, vision.num_frames, number, settings["repeat_frames"])
            for number, video in enumerate(batch["video"], 1)
        ]
        start, end = start_and_end(text)
        encoded = processor.tokenizer.encode(
            [label for group in labels for label in group],
            max_length=text.max_position_embeddings,
            truncate=processor.truncate,
            pad_id=text.pad_token_id or 0,
            ends=((start,), (end,)),
        )
        pixels = np.concatenate([video_pixels(np.stack(video.frames)[None], settings, vision.image_size) for video in loaded])
        arrays = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.mask,
            "pixel_values": np.repeat(pixels, [len(group) for group in labels], axis=0),
        }
        notes = (*encoded.notes, *(note for video in loaded for note in video.notes))
        return Preprocessed(arrays, notes, {"labels": labels})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``embeddings``, length 1: of each video one, and of each of its texts one, as this video changed it. For a video with several
        texts also ``classifications``: the texts as labels, best first, scored by the softmax of the scaled cosines."""
        labels = preprocessed.facts["labels"]
        ends = np.cumsum([len(group) for group in labels])
        texts = np.split(outputs["text_embeds"], ends[:-1])
        video = outputs["video_embeds"][ends - 1]
        result: dict[str, Any] = {"embeddings": {"text": texts, "video": video}}
        if any(len(group) > 1 for group in labels):
            scale = math.exp(learned_scale(processor, "logit_scale", config.logit_scale_init_value))
            result["classifications"] = [
                ranked(scale * text @ row, group) for text, row, group in zip(texts, video, labels, strict=True)
            ]
        return result

    def loss(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Contrastive: text i belongs to video i, and its prompts are made from each video of the batch."""
        return model(**inputs, return_loss=True).loss


def frame_settings(size: int) -> dict[str, Any]:
    """The published processing of microsoft/xclip-base-patch32 for square frames of ``size`` pixels."""
    return {**image_settings(size), "resample": BILINEAR, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}


def video_pixels(frames: np.ndarray, settings: Mapping[str, Any], size: int) -> np.ndarray:
    """float32 [batch, frames, 3, size, size] of uint8 [batch, frames, height, width, 3]."""
    pixels = pixel_values(list(frames.reshape(-1, *frames.shape[2:])), settings, (size, size))
    return pixels.reshape(*frames.shape[:2], *pixels.shape[1:])


def embed(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [batch, projection] of length 1, the text's with the prompt from its own video: the diagonal of what transformers'
    XCLIPModel gives of all pairs. ids and mask int64 [batch, sequence]; pixels [batch, frames, 3, height, width]."""
    video, patches = embed_video(model, pixel_values)
    text = model.text_projection(embed_text(model.text_model, input_ids, attention_mask))[:, None]
    text = (text + model.prompts_generator(text, patches))[:, 0]
    return text / text.norm(dim=-1, keepdim=True), video / video.norm(dim=-1, keepdim=True)


def embed_video(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The video's embedding [batch, projection], and its patches' mean over the frames [batch, patches, projection]."""
    tower, frames = model.vision_model, pixel_values.shape[1]
    hidden = tower.pre_layernorm(tower.embeddings(pixel_values.flatten(0, 1)))
    for layer in tower.encoder.layers:
        hidden = layer(hidden, None)
    pooled = model.visual_projection(tower.post_layernorm(hidden[:, 0]))
    video = model.mit(pooled.unflatten(0, (-1, frames))).pooler_output
    patches = model.prompts_visual_layernorm(hidden[:, 1:]) @ model.prompts_visual_projection
    return video, patches.unflatten(0, (-1, frames)).mean(1)
