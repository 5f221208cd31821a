"""Synthetic weights behave like a model: activations near 1, scores apart, every parameter at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.reference import reference_outputs
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.models.synthetic import synthetic_model

CLASSES = tuple(model_classes())


@pytest.mark.parametrize("name", ["llama", "whisper"])
def test_greedy_choices_are_not_decided_by_rounding(name: str) -> None:
    """At every step the best score leads the second by far more than float32 errors (1e-6 of the largest score)."""
    model_class = model_classes()[name]
    model = synthetic_model(model_class, model_class.sizes["tiny"].config, 0)
    inputs = model_class.inputs(model.config, 2, model_class.default_sequence_length, 0)
    decoder = model_class.graphs(model, inputs, 16)["decoder"].module
    gaps: list[torch.Tensor] = []

    def record(_: object, __: object, outputs: tuple[torch.Tensor, ...]) -> None:
        best, second = outputs[0].topk(2).values.unbind(-1)
        gaps.append((best - second) / outputs[0].abs().amax(-1))

    decoder.register_forward_hook(record)
    graphs = model_class.graphs(model, inputs, 16)
    graphs["decoder"].module.register_forward_hook(record)
    tokens = reference_outputs(graphs, 16)["token_ids"]
    steps = torch.stack(gaps)
    assert steps.shape == (16, 2)
    assert steps.min() > 1e-4
    assert steps.median() > 2e-2
    assert len(set(tokens.ravel().tolist())) >= 5  # it does not just repeat itself


@pytest.mark.parametrize("name", ["bert", "vit", "whisper", "llama"])
def test_seeded(name: str) -> None:
    """The same seed gives the same weights, another seed others; the caller's random state is left alone."""
    model_class = model_classes()[name]
    arguments = model_class.sizes["tiny"].config
    state = torch.random.get_rng_state()
    first, same, other = (synthetic_model(model_class, arguments, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], same[key]) for key in first)
    fixed = {"model.encoder.embed_positions.weight"}  # Whisper's sinusoids
    assert [key for key in first if torch.equal(first[key], other[key])] == [key for key in first if key in fixed]


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_is_left_unfilled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote would hold not-a-number here. What is not drawn (positions, statistics) is as transformers makes it."""
    model_class = model_classes()[name]
    arguments = model_class.sizes["tiny"].config
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        model = synthetic_model(model_class, arguments, 0)
    finally:
        torch.use_deterministic_algorithms(False)
    usual = model_class.build(model_class.config(arguments))
    trained = {key for key, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    theirs = {**dict(usual.named_parameters()), **dict(usual.named_buffers())}
    for key, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        if key in trained:
            assert torch.isfinite(tensor).all(), key
            assert tensor.numel() == 1 or tensor.std() > 0, key
        else:
            torch.testing.assert_close(tensor, theirs[key])


@pytest.mark.parametrize("name", CLASSES)
def test_lower_precision_is_float32_rounded(name: str) -> None:
    """Made at bfloat16, the weights are those of float32, rounded; and what is not a weight or its like stays float32."""
    model_class = model_classes()[name]
    arguments = model_class.sizes["tiny"].config
    full = dict(synthetic_model(model_class, arguments, 0).named_parameters())
    half = synthetic_model(model_class, arguments, 0, dtype=torch.bfloat16)
    for key, parameter in half.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, full[key].bfloat16()), key
    for key, buffer in half.named_buffers():
        if key not in half.state_dict() and buffer.is_floating_point():
            assert buffer.dtype == torch.float32, key  # rotary frequencies, say, which bfloat16 would spoil


def test_a_small_pool_repeats_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of more weights than the pool has: the draws come again, but no two rows of a matrix are equal."""
    monkeypatch.setattr("ipfs_accelerate_py.models.synthetic.POOL", 4093)
    llama = model_classes()["llama"]
    model = synthetic_model(llama, llama.sizes["tiny"].config, 0)
    embeddings = model.get_input_embeddings().weight
    assert embeddings.numel() > 10 * 4093
    assert len(torch.unique(embeddings, dim=0)) == len(embeddings)
    assert embeddings.std().item() == pytest.approx(0.02, rel=0.05)
    layers = model.model.layers
    assert not torch.equal(layers[0].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)


@pytest.mark.parametrize("name", ["bert", "vit", "whisper", "llama"])
def test_inputs_are_seeded_and_distinct(name: str, prepared: Callable[..., Path]) -> None:
    """Rows of a batch differ, and the outputs do too: an engine that ignores its input is found out."""
    model_class = model_classes()[name]
    config = model_class.config(model_class.sizes["tiny"].config)
    first, same, other = (model_class.inputs(config, 2, 16, seed) for seed in (0, 0, 1))
    key = next(iter(first))
    assert np.array_equal(first[key], same[key])
    assert not np.array_equal(first[key], other[key])
    assert not np.array_equal(first[key][0], first[key][1])
    outputs = load_tensors(prepared(name) / "reference.npz")
    scores = outputs.get("logits", outputs.get("embeddings"))
    assert scores is not None
    assert np.abs(scores[0] - scores[1]).max() > 1e-3 * np.abs(scores).max()


def test_whisper_input_is_a_log_mel_spectrogram() -> None:
    """30 s at the published sizes: 80 bands, 3000 frames, in the range that WhisperFeatureExtractor gives."""
    whisper = model_classes()["whisper"]
    features = whisper.inputs(whisper.config(whisper.sizes["small"].config), 1, None, 0)["input_features"]
    assert features.shape == (1, 80, 3000)
    assert features.dtype == np.float32
    assert -1.5 < features.min() < features.max() < 2.5
    assert features.std() > 0.1


def test_whisper_starts_with_the_published_tokens() -> None:
    """<|startoftranscript|><|en|><|transcribe|><|notimestamps|>, and the one start token elsewhere."""
    whisper = model_classes()["whisper"]
    for size, expected in (("small", (50258, 50259, 50359, 50363)), ("tiny", (1,))):
        generation = whisper.generation(whisper.config(whisper.sizes[size].config))
        assert generation is not None
        assert generation.start_token_ids == expected
    arguments = whisper.sizes["small"].config
    for vocabulary, published in ((51864, (50257, 50362)), (51866, (50258, 50259, 50360, 50364))):  # English only; large-v3
        generation = whisper.generation(whisper.config({**arguments, "vocab_size": vocabulary}))
        assert generation is not None
        assert generation.start_token_ids == published
