"""Rotary frequencies against transformers' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.web.rotary import rotary_frequencies

KINDS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 1e6},
    {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 256},
]


@pytest.mark.parametrize("given", KINDS, ids=lambda given: given["rope_type"])
def test_frequencies_are_those_of_transformers(given: dict[str, Any]):
    """Every frequency, and the factor of cosine and sine; the older way to write them gives the same."""
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=1024, rope_parameters=dict(given))
    expected = LlamaRotaryEmbedding(config)
    for written in ({"rope_parameters": given}, {"rope_theta": given["rope_theta"], "rope_scaling": given}):
        frequencies, factor = rotary_frequencies({**written, "max_position_embeddings": 1024}, 64)
        np.testing.assert_allclose(frequencies, expected.inv_freq.numpy(), rtol=1e-5)
        assert factor == pytest.approx(expected.attention_scaling)


def test_a_kind_that_depends_on_the_length_is_refused():
    """One sentence that names the kinds there are."""
    with pytest.raises(
        UserError, match="type 'longrope' are not supported by the WGSL engine \\(it has default, linear, llama3, yarn\\)"
    ):
        rotary_frequencies({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, 64)
