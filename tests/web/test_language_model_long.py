"""The engine's logits from one token to 4096, of prompts and of single tokens, against transformers on the dequantised weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_models import logits, save
from engine_pages import worst
from product_model import require

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web.language_model import LanguageModel, Sampling

pytest.importorskip("transformers")

LENGTHS = (1, 17, 512)
VOCABULARY = 64


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A llama of one layer, so that software adapters reach 4096 tokens; rotations matter at every distance."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def tokens(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, VOCABULARY, count)


def ends(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest error over all positions, and over the last 32 alone, which see the most."""
    return max(worst(found, expected), worst(found[-32:], expected[-32:]))


@pytest.mark.parametrize(("key", "bits"), [("chromium", 4), ("firefox", 3), ("firefox", 2)])
def test_one_to_512_tokens(tmp_path: Path, tiny: Any, key: str, bits: int):
    """Within 1e-3 with a float32 cache, a token and a chunk at a time; and 512 tokens after one reuse nothing."""
    import copy

    model = save(copy.deepcopy(tiny), tmp_path / "model", bits)
    options = {"context_length": 512, "prefill_tokens": 128, "key_bits": 32, "value_bits": 32}
    with LanguageModel(require(key), tmp_path / "model", **options) as engine:
        engine.load()
        for count in LENGTHS:
            ids = tokens(count)
            expected = logits(model, ids)
            for path in ("prefill", "decode"):
                assert ends(engine.logits(ids, path=path), expected) < 1e-3


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_4096_tokens(tmp_path: Path, tiny: Any, key: str):
    """4 bits, float32 cache: a prompt at each of 4096 positions, and single tokens after 4088, whose attention is split over them all:
    each has transformers' greatest score, and its log-probability is within 1e-3."""
    import copy

    model = save(copy.deepcopy(tiny), tmp_path / "model", 4)
    ids = tokens(4096)
    expected = logits(model, ids)
    options = {"context_length": 4096, "prefill_tokens": 512, "key_bits": 32, "value_bits": 32}
    with LanguageModel(require(key), tmp_path / "model", **options) as engine:
        engine.load()
        assert ends(engine.logits(ids), expected) < 1e-3
        prompt = ids[:4088]
        found = list(engine.generate(prompt, max_new_tokens=8, stop=(), sampling=Sampling(logprobs=True)))
        taken = np.array([token.id for token in found])
        scores = logits(model, np.concatenate([prompt, taken]))[4087:-1].astype(np.float64)
        rows = np.arange(8)
        assert (scores.max(-1) - scores[rows, taken]).max() < 1e-3 * np.abs(scores).max()
        scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
        np.testing.assert_allclose([token.logprob for token in found], scores[rows, taken], atol=1e-3 * np.abs(scores).max())


def test_float16_arithmetic_over_512_tokens(tmp_path: Path, tiny: Any):
    """Within 1e-2 where the adapter has shader-f16."""
    import copy

    model = save(copy.deepcopy(tiny), tmp_path / "model", 4)
    options = {"context_length": 512, "prefill_tokens": 128, "prefill_arithmetic": "float16"}
    try:
        engine = LanguageModel(require("firefox"), tmp_path / "model", **options)
        with engine:
            engine.load()
            for count in LENGTHS:
                assert ends(engine.logits(tokens(count)), logits(model, tokens(count))) < 1e-2
    except LaunchError as error:
        if "shader-f16" in str(error):
            pytest.skip(str(error))
        raise
