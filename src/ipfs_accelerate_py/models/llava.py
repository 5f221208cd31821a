"""LLaVA image-text generation (Liu et al., 2023, https://arxiv.org/abs/2310.03744): a vision tower, a projector and a language model.

The ``vision`` graph runs once and gives each image as a block of embeddings. In the prompt the image token stands once for each of them, in
one block at any place; ``decoder`` puts the embeddings there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .causal import causal_generation, decode_embedded, longest_sequence
from .prepared import Generation
from .processing.chat import image_prompt, image_prompt_ids
from .processing.image import BICUBIC, CLIP_MEAN, CLIP_STD, HALF, as_image, example_images, pixel_values
from .processing.processor import Preprocessed, Processor, check_raw
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": False,
}
CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
QWEN2 = {
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


class Llava(ModelClass):
    name = "llava"
    family = "multimodal"
    leaves_unused = True  # the norm after the tower, and layers above the one that is selected
    task = "image-text-to-text"
    transformers_model_types = ("llava",)
    default_sequence_length = 32  # of text; the image's block comes on top
    default_new_tokens = 16
    raw_inputs = ("text", "image")
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "image_token_index": 999,
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full",
                "vision_config": {
                    **SIGLIP,
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "image_size": 32,
                    "patch_size": 8,
                },
                "text_config": {
                    **QWEN2,
                    "vocab_size": 1000,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 256,
                    "bos_token_id": None,
                    "eos_token_id": None,
                },
            },
        ),
        "base": Size(
            "llava-hf/llava-interleave-qwen-0.5b-hf",
            {
                "image_token_index": 151646,
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full",
                "vision_config": {
                    **SIGLIP,
                    "hidden_size": 1152,
                    "intermediate_size": 4304,
                    "num_hidden_layers": 26,
                    "num_attention_heads": 16,
                    "image_size": 384,
                    "patch_size": 14,
                },
                "text_config": {
                    **QWEN2,
                    "vocab_size": 152000,
                    "hidden_size": 1024,
                    "intermediate_size": 2816,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "num_key_value_heads": 16,
                    "max_position_embeddings": 32768,
                    "bos_token_id": 151643,
                    "eos_token_id": 151645,
                },
            },
        ),
        "7b": Size(
            "llava-hf/llava-1.5-7b-hf",
            {
                "image_token_index": 32000,
                "vision_feature_layer": -2,
                "vision_feature_select_strategy": "default",
                "vision_config": CLIP_L_336,
                "text_config": {
                    "model_type": "llama",
                    "vocab_size": 32064,
                    "hidden_size": 4096,
                    "intermediate_size": 11008,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 32,
                    "max_position_embeddings": 4096,
                    "rms_norm_eps": 1e-5,
                    "hidden_act": "silu",
                    "tie_word_embeddings": False,
                },
            },
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import LlavaConfig

        return LlavaConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        """Of text and new tokens together: what the language model takes less the image's block."""
        return longest_sequence(arguments["text_config"]) - self.image_tokens(arguments)

    def image_tokens(self, arguments: Mapping[str, Any]) -> int:
        """Embeddings in the block of an image: one a patch, and the class token's, less the first where the strategy drops it."""
        vision = arguments["vision_config"]
        side = vision["image_size"] // vision["patch_size"]
        has_class_token = vision["model_type"] == "clip_vision_model"
        return side**2 + has_class_token - (arguments.get("vision_feature_select_strategy", "default") == "default")

    def example_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width, in pixels, of the images that ``inputs`` makes."""
        side = arguments["vision_config"]["image_size"]
        return side, side

    def inputs(self, config: Any, batch_size: int, sequence_length: int | None, seed: int) -> dict[str, np.ndarray]:
        """``input_ids`` int64 [batch, text + image tokens], in each row the image's block at another place; ``pixel_values`` float32."""
        arguments, text = config.to_dict(), copy.copy(config.text_config)
        text.name_or_path = config.name_or_path
        length = sequence_length or self.default_sequence_length
        ids, _ = token_ids(text, batch_size, length, seed, padded=False)
        ids[ids == config.image_token_id] = 0
        first = 1 + (np.random.default_rng(seed).integers(length) + np.arange(batch_size)) % length
        block = [config.image_token_id] * self.image_tokens(arguments)
        images = example_images(batch_size, self.example_size(arguments), seed)
        return {
            "input_ids": np.stack([np.insert(row, place, block) for row, place in zip(ids, first, strict=True)]),
            "pixel_values": self.pixels(config, list(images), self.settings(config)),
        }

    def generation(self, config: Any) -> Generation:
        return causal_generation(config.text_config)

    def graphs(self, model: Any, inputs: Mapping[str, np.ndarray], new_tokens: int | None) -> dict[str, ExportGraph]:
        from .modules import Forward, decoder_graph

        prompt, pixels = inputs["input_ids"], inputs["pixel_values"]
        config = model.config
        shape = (len(prompt), self.image_tokens(config.to_dict()), config.text_config.hidden_size)
        features = {"image_features": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
        cache = prompt.shape[1] + (new_tokens or self.default_new_tokens)
        vision = ExportGraph(
            Forward(model, self.vision(config)), {"pixel_values": pixels}, ("image_features",), {"pixel_values": {0: "batch"}}
        )
        return {
            "vision": vision,
            "decoder": decoder_graph(model, decode, self.generation(config), prompt, cache, features),
        }

    def vision(self, config: Any) -> Any:
        """The function of the vision graph for this configuration."""
        return project

    def settings(self, config: Any) -> dict[str, Any]:
        """The published processing: SigLIP squeezes an image into the square, CLIP crops its middle."""
        side = config.vision_config.image_size
        square = {"height": side, "width": side}
        if config.vision_config.model_type == "siglip_vision_model":
            return {"size": square, "resample": BICUBIC, "image_mean": HALF, "image_std": HALF}
        return {
            "do_center_crop": True,
            "crop_size": square,
            "size": {"shortest_edge": side},
            "default_to_square": False,
            "resample": BICUBIC,
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
        }

    def pixels(self, config: Any, images: Sequence[np.ndarray], settings: Mapping[str, Any]) -> np.ndarray:
        """float32 [batch, 3, height, width] of uint8 images [height, width, 3]."""
        side = config.vision_config.image_size
        return pixel_values(images, settings, (side, side))

    def load_images(self, config: Any, values: Sequence[Any]) -> tuple[list[np.ndarray], tuple[str, ...]]:
        """The images as uint8 [height, width, 3], and notes."""
        return [as_image(value) for value in values], ()

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """``text``: a question, put into the folder's chat template, or a whole prompt with ``<image>`` in it; ``image``: one for each.

        A prompt that is too long is always refused: cutting it could cut the image or the template's end.
        """
        batch = check_raw(raw, self.raw_inputs, self.name)
        images, image_notes = self.load_images(config, batch["image"])
        prompts = [image_prompt(text, processor.folder, number) for number, text in enumerate(batch["text"], 1)]
        text = config.text_config
        ids, notes = image_prompt_ids(
            processor.tokenizer,
            prompts,
            image_token=config.image_token_id,
            image_tokens=self.image_tokens(config.to_dict()),
            start=() if text.bos_token_id is None else (text.bos_token_id,),
            most=longest_sequence(text.to_dict()) - 1,  # one token must be left to generate
        )
        pixels = self.pixels(config, images, processor.settings(self.settings(config)))
        return Preprocessed({"input_ids": ids, "pixel_values": pixels}, (*notes, *image_notes))

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``text`` and ``token_ids`` of the answers, up to the end token; ``complete`` says whether each came to one."""
        from .processing.text import generated_text

        return generated_text(processor.tokenizer, outputs["token_ids"], processor.end_tokens(config.text_config.eos_token_id))

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy, in nats, of each text token after the first, given the image and the tokens before it."""
        ids = inputs["input_ids"]
        labels = ids.masked_fill(ids == model.config.image_token_id, -100)
        return model(**inputs, labels=labels, use_cache=False).loss


def project(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Embeddings [batch, image tokens, hidden] of ``pixel_values`` [batch, 3, height, width]: the selected layers of the vision tower (the
    last ones are often left out), projected to the language model's width."""
    import torch

    config, tower = model.config, model.model.vision_tower
    hidden = tower.embeddings(pixel_values)
    if hasattr(tower, "pre_layrnorm"):  # CLIP's own spelling
        hidden = tower.pre_layrnorm(hidden)
    selected = config.vision_feature_layer
    count = len(tower.encoder.layers) + 1  # the embeddings are layer 0
    wanted = [layer % count for layer in ([selected] if isinstance(selected, int) else selected)]
    states = [hidden]
    for layer in tower.encoder.layers[: max(wanted)]:
        states.append(encode(layer, states[-1]))
    features = torch.cat([states[layer] for layer in wanted], dim=-1) if len(wanted) > 1 else states[wanted[0]]
    if config.vision_feature_select_strategy == "default":
        features = features[:, 1:]
    return model.model.multi_modal_projector(features)


def encode(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A layer of a CLIP or SigLIP tower. SigLIP's GELU by tanh is written out, with 1 + tanh(u) = 2 sigmoid(2u): onnxruntime-web hands
    WebNN, which has the exact GELU alone, that one without a word."""
    from transformers.activations import GELUTanh

    hidden = hidden + layer.self_attn(layer.layer_norm1(hidden))[0]
    expanded = layer.mlp.fc1(layer.layer_norm2(hidden))
    if isinstance(layer.mlp.activation_fn, GELUTanh):
        scale = 2 * math.sqrt(2 / math.pi)
        expanded = expanded * (expanded * (scale + 0.044715 * scale * expanded * expanded)).sigmoid()
    else:
        expanded = layer.mlp.activation_fn(expanded)
    return hidden + layer.mlp.fc2(expanded)


def decode(model: Any, input_ids: torch.Tensor, positions: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [batch, vocabulary] of the last position, then the new keys and values. ``states`` is past, then image_features."""
    *past, features = states
    language_model = model.model.language_model
    hidden = language_model.embed_tokens(input_ids)
    vocabulary = language_model.embed_tokens.num_embeddings
    hidden = with_image(hidden, input_ids, positions, features, model.config.image_token_id, vocabulary)
    return decode_embedded(language_model, model.lm_head, hidden, positions, past)


def with_image(
    hidden: torch.Tensor,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    features: torch.Tensor,
    image_token: int,
    vocabulary: int,
) -> torch.Tensor:
    """``hidden`` [batch, sequence, width] with the block of image tokens of each row replaced by ``features`` [batch, tokens, width].

    Only in the prefill, which begins at position 0 and whose positions thus are places in the row: a generated token with the same id
    is text. Gathers, Wheres and one ReduceMin in 32-bit integers, whose shapes are static once the dimensions are.
    """
    import torch
    from torch.nn.functional import embedding

    from .modules import lookup

    batch, count = features.shape[:2]
    tokens = torch.arange(vocabulary, dtype=torch.int32, device=input_ids.device)
    here = (lookup((tokens == image_token).to(torch.int32), input_ids) == 1) & (positions[0] == 0)
    first = torch.where(here, positions, torch.iinfo(torch.int32).max).amin(1, keepdim=True)
    rows = torch.where(here, positions - first, 0)
    rows = rows + torch.arange(batch, dtype=torch.int32, device=input_ids.device)[:, None] * count
    return torch.where(here[:, :, None], embedding(rows, features.flatten(0, 1)), hidden)
