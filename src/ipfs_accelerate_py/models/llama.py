"""Llama text generation (Touvron et al., 2023, https://arxiv.org/abs/2307.09288) with a key-value cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import ExportGraph, ModelClass, Size
from .prepared import Generation
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

COMMON = {"vocab_size": 32000, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False}


class Llama(ModelClass):
    name = "llama"
    family = "text_generation"
    task = "text-generation"
    transformers_model_types = ("llama",)
    default_sequence_length = 64
    default_new_tokens = 16
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                **COMMON,
                "vocab_size": 1000,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 128,
                "max_position_embeddings": 256,
            },
        ),
        "small": Size(
            "Xenova/llama2.c-stories15M",
            {
                **COMMON,
                "hidden_size": 288,
                "num_hidden_layers": 6,
                "num_attention_heads": 6,
                "num_key_value_heads": 6,
                "intermediate_size": 768,
                "max_position_embeddings": 256,
                "tie_word_embeddings": True,
            },
        ),
        "base": Size(
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            {
                **COMMON,
                "hidden_size": 2048,
                "num_hidden_layers": 22,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "intermediate_size": 5632,
                "max_position_embeddings": 2048,
            },
        ),
        "7b": Size(
            "meta-llama/Llama-2-7b-hf",
            {
                **COMMON,
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "intermediate_size": 11008,
                "max_position_embeddings": 4096,
            },
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import LlamaConfig

        return LlamaConfig(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return int(arguments["max_position_embeddings"])

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """The prompt: ``input_ids`` int64 [batch, sequence], every row full."""
        ids, _ = token_ids(config, batch_size, sequence_length or self.default_sequence_length, seed, padded=False)
        return {"input_ids": ids}

    def generation(self, config: PretrainedConfig) -> Generation:
        return Generation(
            layers=config.num_hidden_layers,
            key_value_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            vocabulary=config.vocab_size,
            cache_dtype="float32",
        )

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import decoder_graph

        prompt = inputs["input_ids"]
        cache = prompt.shape[1] + (new_tokens or self.default_new_tokens)
        return {"decoder": decoder_graph(model, decode, self.generation(model.config), prompt, cache)}


def decode(model: Any, input_ids: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [batch, vocabulary] of the last position, then the new keys and values. Shapes as in ``prepared.py``."""
    from .modules import StaticCache

    cache = StaticCache(past, positions)
    hidden = model.model.embed_tokens(input_ids)
    rotary = model.model.rotary_emb(hidden, positions[None, :])
    for layer in model.model.layers:
        hidden = layer(hidden, attention_mask=cache.bias, past_key_values=cache, position_embeddings=rotary)
    last = model.model.norm(hidden[:, -1:])
    return model.lm_head(last)[:, 0], *cache.present
