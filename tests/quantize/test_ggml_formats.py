"""The bridge to llama.cpp's quantisers, against a decoder written from the published layout; and its file types' mixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ggml
from llama_cpp_recipes import recipe

CONFIG = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "vocab_size": 8192,
    "tie_word_embeddings": True,
}
needs_library = pytest.mark.skipif(ggml.missing() is not None, reason=f"llama.cpp's formats: {ggml.missing()}")


@needs_library
def test_q4_0_decodes_as_its_layout_says() -> None:
    """Blocks of 32: a float16 scale and 16 bytes, the low halves first; w = scale * (q - 8)."""
    values = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
    packed = ggml.quantize(values, "Q4_0")
    blocks = packed.reshape(-1, 18)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    expected = (scales * (codes - 8)).reshape(values.shape)
    assert np.array_equal(ggml.dequantize(packed, "Q4_0", 256), expected)
    assert np.abs(expected - values).max() < 0.3


@needs_library
@pytest.mark.parametrize("kind", ("Q2_K", "IQ3_XXS", "Q3_K", "Q4_K"))
def test_an_importance_matrix_counts(kind: str) -> None:
    """Columns that matter lose less than without one, in the bits that llama.cpp states."""
    values = np.random.default_rng(1).standard_normal((32, 512)).astype(np.float32)
    importance = np.where(np.arange(512) % 4 == 0, 100.0, 1.0).astype(np.float32)
    lost = []
    for weights in (None, importance):
        packed = ggml.quantize(values, kind, weights)
        assert 8 * packed.size / values.size == {"Q2_K": 2.625, "IQ3_XXS": 3.0625, "Q3_K": 3.4375, "Q4_K": 4.5}[kind]
        lost.append(np.square(ggml.dequantize(packed, kind, 512) - values)[:, ::4].sum())
    assert lost[1] < lost[0]


def test_mixtures_follow_the_published_rules() -> None:
    """What llama-quantize's rules give for 6 layers with as many key-value heads as heads and a tied embedding."""
    layer = "model.layers.{}.{}.weight".format
    small, medium = recipe("Q2_K", CONFIG), recipe("Q4_K_M", CONFIG)
    assert small["model.embed_tokens.weight"] == "Q6_K"
    assert small[layer(3, "mlp.down_proj")] == small[layer(3, "self_attn.v_proj")] == "Q3_K"
    assert small[layer(3, "mlp.up_proj")] == "Q2_K"
    assert [medium[layer(index, "mlp.down_proj")] for index in range(6)] == ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K"]
    assert recipe("Q2_K", {**CONFIG, "num_key_value_heads": 2})[layer(0, "self_attn.v_proj")] == "Q4_K"
