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
