"""Qwen2 text generation (Yang et al., 2024, https://arxiv.org/abs/2407.10671): as Llama, with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Size
from .causal import CausalModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

COMMON = {
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "use_sliding_window": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "tie_word_embeddings": True,
}


class Qwen2(CausalModel):
    name = "qwen2"
    transformers_model_types = ("qwen2",)
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
                "bos_token_id": None,
                "eos_token_id": None,
            },
        ),
        "base": Size(
            "Qwen/Qwen2-0.5B-Instruct",
            {
                **COMMON,
                "hidden_size": 896,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "intermediate_size": 4864,
            },
        ),
        "1.5b": Size(
            "Qwen/Qwen2-1.5B-Instruct",
            {
                **COMMON,
                "hidden_size": 1536,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
                "intermediate_size": 8960,
            },
        ),
        "7b": Size(
            "Qwen/Qwen2-7B-Instruct",
            {
                **COMMON,
                "vocab_size": 152064,
                "hidden_size": 3584,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "intermediate_size": 18944,
                "tie_word_embeddings": False,
            },
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import Qwen2Config

        return Qwen2Config(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import Qwen2ForCausalLM

        return Qwen2ForCausalLM(config).eval()
