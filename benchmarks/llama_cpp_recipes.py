"""Which format each matrix gets in llama.cpp's named file types (``llama-quantize``), for dense decoders of the llama family.

The rules are those of ``llama_tensor_get_type_impl`` in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp, read at
commit 007dbbf3fd17, for models with an importance matrix, without experts and other than 70B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipfs_accelerate_py.quantize import architecture

BASE = {"Q2_K": "Q2_K", "IQ3_XXS": "IQ3_XXS", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K"}
FIXED = {  # by file type and role, where the layer does not matter
    "Q2_K": {"v_proj": "Q3_K", "o_proj": "Q3_K", "down_proj": "Q3_K"},
    "IQ3_XXS": {"q_proj": "IQ2_S", "k_proj": "IQ2_S", "o_proj": "IQ3_S"},
    "Q3_K_M": {"o_proj": "Q4_K"},
}
GROUPED_VALUES = {"Q2_K": "Q4_K", "IQ3_XXS": "Q4_K"}  # of models with four and more query heads for each key-value head


def recipe(file_type: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The format of every matrix by transformers' name."""
    found = {}
    for name in architecture.shapes(config):
        role = architecture.role(name)
        if role is not None:
            found[name] = _format(file_type, role, architecture.layer_of(name), config)
    return found


def _format(file_type: str, role: str, layer: int | None, config: Mapping[str, Any]) -> str:
    if role == "head" or (role == "embedding" and config.get("tie_word_embeddings", False)):
        return "Q5_K" if file_type == "IQ3_XXS" else "Q6_K"
    if role == "embedding":
        return "IQ3_S" if file_type == "IQ3_XXS" else BASE[file_type]
    assert layer is not None, role
    layers = int(config["num_hidden_layers"])
    grouped = int(config["num_attention_heads"]) // architecture.key_value_heads(config) >= 4
    more_bits = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    if role == "v_proj" and grouped and file_type in GROUPED_VALUES:
        return GROUPED_VALUES[file_type]
    if file_type == "Q3_K_M" and role == "v_proj":
        return "Q5_K" if layer < 2 else "Q4_K"
    if file_type == "Q3_K_M" and role == "down_proj":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if file_type == "Q4_K_M" and role in ("v_proj", "down_proj") and more_bits:
        return "Q6_K"
    if file_type == "Q4_K_S" and ((role == "v_proj" and layer < 4) or (role == "down_proj" and layer < layers // 8)):
        return "Q5_K"
    return FIXED.get(file_type, {}).get(role, BASE[file_type])
