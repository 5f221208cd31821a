"""Llama text generation (Touvron et al., 2023, https://arxiv.org/abs/2307.09288) with a key-value cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Size
from .causal import CausalModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

COMMON = {"vocab_size": 32000, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False}


class Llama(CausalModel):
    name = "llama"
    transformers_model_types = ("llama", "mistral")  # the same layers; a window of attention is the difference
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
        from transformers import LlamaForCausalLM, MistralForCausalLM

        kind = MistralForCausalLM if config.model_type == "mistral" else LlamaForCausalLM
        return kind(config).eval()
