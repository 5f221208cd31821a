"""What Llama, Qwen2, Mistral and the language models inside LLaVA share: one decode for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.generation import GenerationMixin

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.base import ExportGraph
from ipfs_accelerate_py.models.causal import causal_generation, decode, decode_embedded, longest_sequence
from ipfs_accelerate_py.models.modules import Forward, decoder_graph
from ipfs_accelerate_py.models.reference import reference_outputs

SHAPE = {
    "vocab_size": 500,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
ROTARY = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16},
}


def language_model(kind: str, **arguments: Any) -> Any:
    """A seeded one with activations near 1, so that wrong positions or a lost bias would show."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE, **arguments)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.ndim == 1))
    return model


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
@pytest.mark.parametrize("rotary", ROTARY)
def test_generation_equals_transformers(kind: str, rotary: str) -> None:
    """Greedy tokens and first logits, with every kind of rotary scaling that does not depend on the length."""
    model = language_model(kind, rope_parameters=ROTARY[rotary])
    prompt = torch.randint(0, 500, (2, 30), generator=torch.Generator().manual_seed(1))
    expected = GenerationMixin.generate(
        model, prompt, do_sample=False, min_new_tokens=8, max_new_tokens=8, eos_token_id=None, pad_token_id=0
    )[:, -8:]
    graph = decoder_graph(model, decode, causal_generation(model.config), prompt.numpy(), 38)
    outputs = reference_outputs({"decoder": graph}, 8)
    np.testing.assert_array_equal(outputs["token_ids"], expected.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(outputs["logits"], model(prompt).logits[:, -1].numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_embedded_tokens_need_no_embedding(kind: str) -> None:
    """What is no token's embedding (an image's features) is decoded as transformers decodes ``inputs_embeds``."""
    model = language_model(kind)
    generation = causal_generation(model.config)
    hidden = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(2))
    past = [torch.zeros(2, generation.key_value_heads, 9, generation.head_size)] * 2 * generation.layers
    with torch.no_grad():
        logits, *present = decode_embedded(model.model, model.lm_head, hidden, torch.arange(7), past)
        torch.testing.assert_close(logits, model(inputs_embeds=hidden).logits[:, -1], atol=1e-4, rtol=1e-4)
    assert [tensor.shape for tensor in present] == [(2, 2, 9, 16)] * 4
    assert not present[0][:, :, 7:].any()


@pytest.mark.parametrize("rotary", ["dynamic", "longrope"])
def test_rotary_positions_that_change_with_the_length_are_refused(rotary: str) -> None:
    """A graph has one set of frequencies."""
    config = transformers.LlamaConfig(**SHAPE)
    config.rope_parameters = {"rope_type": rotary, "rope_theta": 500.0}
    with pytest.raises(UserError, match=f"of type '{rotary}' change with the sequence's length"):
        causal_generation(config)


def test_a_sliding_window_limits_the_sequence() -> None:
    """Up to its length a window hides nothing; Qwen2 names one that it does not use."""
    assert longest_sequence({"max_position_embeddings": 100}) == 100
    assert longest_sequence({"max_position_embeddings": 100, "sliding_window": None}) == 100
    assert longest_sequence({"max_position_embeddings": 100, "sliding_window": 40}) == 40
    assert longest_sequence({"max_position_embeddings": 100, "sliding_window": 40, "use_sliding_window": False}) == 100


def test_rotary_frequencies_stay_float32() -> None:
    """At float16 and position 2000 the angles are those of float32; the weights are float16."""
    model = language_model("Llama", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    frequencies = model.model.rotary_emb.inv_freq.clone()
    assert (frequencies.half().float() - frequencies).abs().max() * 2000 > 0.1  # radians: what would go wrong
    Forward(model, decode).to(torch.float16)
    assert model.lm_head.weight.dtype == torch.float16
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)


def test_example_of_decoder_graph_has_its_axes() -> None:
    """Inputs beyond the cache have the batch as dynamic axis, unless their axes are given."""
    model = language_model("Llama")
    others = {"image_features": np.zeros((1, 4, 8), np.float32), "attention_mask": np.ones((1, 5), np.int64)}
    axes = {"attention_mask": {0: "batch", 1: "source"}}
    graph: ExportGraph = decoder_graph(
        model, decode, causal_generation(model.config), np.zeros((1, 3), np.int64), 8, others, axes
    )
    assert list(graph.inputs)[-2:] == ["image_features", "attention_mask"]
    assert graph.dynamic["image_features"] == {0: "batch"}
    assert graph.dynamic["attention_mask"] == axes["attention_mask"]
