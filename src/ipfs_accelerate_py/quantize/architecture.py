"""What a decoder of the llama family consists of: every tensor with its shape and role, from ``config.json`` alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import UserError

MODEL_TYPES = ("llama", "qwen2", "mistral")
LAYER = re.compile(r"model\.layers\.(\d+)\.")
# Roles of the quantised matrices. All others (norms and biases: a vector each) stay float32.
ROLES = ("embedding", "head", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OTHER_PARTS = {  # what a name has when it belongs to a part that has no low-bit form here
    "vision_tower": "a vision tower",
    "multi_modal_projector": "a multimodal projector",
    "block_sparse_moe": "a mixture of experts",
    "experts": "a mixture of experts",
    "q_norm": "norms of queries and keys",
    "k_norm": "norms of queries and keys",
    "lora": "an adapter that is not merged",
}


def check_supported(config: Mapping[str, Any], where: str) -> None:
    """UserError for a model whose matrices this package does not know, with what runs it instead."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        part = " (the language model inside it would be, from a folder of its own)" if "text_config" in config else ""
        raise UserError(
            f"'{where}' is a model of type '{kind}'; low-bit weights are made for decoders of type {', '.join(MODEL_TYPES)}{part}. "
            "It runs at 8 and 4 bits through onnxruntime: ipfs-accelerate bench --models ... --precisions int8,int4"
        )
    if config.get("quantization_config") is not None:
        raise UserError(f"The weights of '{where}' are quantised already; name the model with float weights.")


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape by transformers' name, in the order of the forward pass.

    ``config`` holds config.json's values; ``model_type`` must be one of MODEL_TYPES. UserError where a size is missing.
    """
    try:
        hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        heads, layers, vocabulary = (int(config[key]) for key in ("num_attention_heads", "num_hidden_layers", "vocab_size"))
    except KeyError as missing:
        raise UserError(f"config.json does not say {missing.args[0]}, without which no shape is known.") from missing
    kind = config["model_type"]
    key_value, head = key_value_heads(config), head_size(config)
    attention_bias = kind == "qwen2" or bool(config.get("attention_bias", False))
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        start = f"model.layers.{layer}."
        found[f"{start}input_layernorm.weight"] = (hidden,)
        for name, rows in (("q", heads * head), ("k", key_value * head), ("v", key_value * head)):
            found[f"{start}self_attn.{name}_proj.weight"] = (rows, hidden)
            if attention_bias:
                found[f"{start}self_attn.{name}_proj.bias"] = (rows,)
        found[f"{start}self_attn.o_proj.weight"] = (hidden, heads * head)
        if attention_bias and kind == "llama":
            found[f"{start}self_attn.o_proj.bias"] = (hidden,)
        found[f"{start}post_attention_layernorm.weight"] = (hidden,)
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            found[f"{start}mlp.{name}_proj.weight"] = shape
            if config.get("mlp_bias", False):
                found[f"{start}mlp.{name}_proj.bias"] = shape[:1]
    found["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        found["lm_head.weight"] = (vocabulary, hidden)
    return found


def key_value_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def role(name: str) -> str | None:
    """One of ROLES; None for a tensor that stays in floating point."""
    if not name.endswith(".weight"):
        return None
    if name == "model.embed_tokens.weight":
        return "embedding"
    if name == "lm_head.weight":
        return "head"
    part = name.split(".")[-2]
    return part if part in ROLES else None


def layer_of(name: str) -> int | None:
    """The number of the decoder layer that a tensor belongs to; None outside of them."""
    found = LAYER.match(name)
    return int(found[1]) if found else None


def shards(names: Mapping[str, Any]) -> dict[str, list[str]]:
    """Tensors by shard: the embedding, each layer, and what comes after the last, in the order of the forward pass."""
    found: dict[str, list[str]] = {}
    for name in names:
        layer = layer_of(name)
        shard = f"layer-{layer:03}" if layer is not None else "embedding" if "embed_tokens" in name else "head"
        found.setdefault(shard, []).append(name)
    return found


def check_tensors(config: Mapping[str, Any], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """UserError where the tensors of a folder are not those of its config: which is missing, foreign, or of another shape."""
    expected = shapes(config)
    for name in found:
        if name in expected or name.endswith("rotary_emb.inv_freq") or name == "lm_head.weight":
            continue
        for word, part in OTHER_PARTS.items():
            if word in name:
                raise UserError(f"'{where}' has {part} (tensor '{name}'), which has no low-bit form here.")
        raise UserError(f"'{where}' has a tensor '{name}' that a {config['model_type']} decoder does not have.")
    missing = [name for name in expected if name not in found]
    if missing:
        raise UserError(f"'{where}' lacks {len(missing)} of its tensors, first '{missing[0]}'.")
    for name, shape in expected.items():
        if found[name] != shape:
            raise UserError(
                f"'{where}' does not fit its config.json: tensor '{name}' is {list(found[name])} in the weights and {list(shape)} "
                "by the config."
            )


def float16_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of all the tensors at two bytes a number."""
    return 2 * sum(math.prod(shape) for shape in shapes(config).values())
