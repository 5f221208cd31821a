"""T5's relative positions, and the variants of it that a folder may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from ipfs_accelerate_py.models.prepare import load_model
from ipfs_accelerate_py.models.reference import reference_outputs
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.models.t5 import relative_bias


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_relative_bias_is_that_of_transformers(prepared: Any, side: str) -> None:
    """At every distance, far beyond the 128 from which all share a bucket."""
    attention = getattr(load_model(prepared("t5")), side).block[0].layer[0].SelfAttention
    places = torch.arange(300, dtype=torch.int32)
    with torch.no_grad():
        actual = relative_bias(attention, places[None, :] - places[:, None])
        expected = attention.compute_bias(300, 300)
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
    assert len(expected[0, 0].unique()) > 15


@pytest.mark.parametrize("length", [1, 9, 200])
@pytest.mark.parametrize(
    "variant",
    [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {"num_decoder_layers": 3, "d_kv": 24}],
    ids=["t5", "v1.1", "asymmetric"],
)
def test_generation_equals_transformers(variant: dict[str, Any], length: int) -> None:
    """Greedy tokens and first logits of T5, of 1.1 (gated, output not scaled) and of a decoder deeper than its encoder, with padding."""
    torch.manual_seed(0)
    tiny = dict(model_classes()["t5"].sizes["tiny"].config)
    model = T5ForConditionalGeneration(T5Config(**tiny | {"initializer_factor": 0.7} | variant)).eval()
    assert model.config.scale_decoder_outputs == ("tie_word_embeddings" not in variant)
    model_class = model_classes()["t5"]
    inputs = model_class.inputs(model.config, 3, length, 0)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    outputs = reference_outputs(model_class.graphs(model, inputs, 8), 8)
    with torch.no_grad():
        first = model(**tensors, decoder_input_ids=torch.zeros((3, 1), dtype=torch.long)).logits[:, -1]
        expected = model.generate(
            **tensors, do_sample=False, use_cache=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
        )[:, -8:]
    np.testing.assert_allclose(outputs["logits"], first.numpy(), atol=1e-4)
    np.testing.assert_array_equal(outputs["token_ids"], expected.numpy())
