"""Small decoders with lively weights, in float and in low bits, and what transformers says of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.quantize.folder import Request, quantize_folder
from ipfs_accelerate_py.quantize.sources import FolderSource
from ipfs_accelerate_py.quantize.stored import QuantizedFolder

COMMON = {"vocab_size": 331, "num_hidden_layers": 2, "max_position_embeddings": 1024, "initializer_range": 0.2}
SHAPES: dict[str, dict[str, Any]] = {
    # queries wider than the hidden size, rows that fill no group
    "llama": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 136},
    # biases, tied embeddings
    "qwen2": {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 104,
        "tie_word_embeddings": True,
    },
    # a window, heads of 24 channels, one key-value head a query head
    "mistral": {
        "hidden_size": 72,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "intermediate_size": 100,
        "sliding_window": 40,
    },
}


def build(name: str) -> Any:
    """The transformers model, seeded; biases are not zero."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }
    torch.manual_seed(0)
    config, model = kinds[name]
    built = model(config(**COMMON, **SHAPES[name])).eval()
    with torch.no_grad():
        for key, value in built.state_dict().items():
            if key.endswith(".bias"):
                value.normal_(std=0.5)
            elif value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return built


def save(
    model: Any, folder: Path, bits: int | None, group_size: int = 32, dtype: str = "float32", budget: float | None = None
) -> Any:
    """Save the model to ``folder``, in ``dtype`` or in low bits; returns it with the weights that were really stored."""
    import torch

    if bits is None:
        kind = getattr(torch, dtype)
        copy.deepcopy(model).to(kind).save_pretrained(folder)
        for parameter in model.parameters():  # the model as a whole would round its rotary frequencies too
            parameter.data = parameter.data.to(kind).float()
        return model
    source = folder.with_name(folder.name + "-source")
    model.save_pretrained(source)
    quantize_folder(FolderSource(source, "test"), Request("test", bits, group_size, "rtn", budget), folder)
    low = QuantizedFolder(folder)
    model.load_state_dict({name: torch.from_numpy(low.read(name).copy()) for name in low.tensors}, strict=False)
    return model


def logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """float32 [tokens, vocabulary] of transformers, with eager attention so that a window is a plain mask."""
    import torch

    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).logits[0].numpy()


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}


def some_ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, COMMON["vocab_size"], count)
