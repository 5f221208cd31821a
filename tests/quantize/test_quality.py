"""Perplexity layer by layer against transformers, and the interval of a ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ipfs_accelerate_py.models.registry import model_classes, resolve
from ipfs_accelerate_py.models.synthetic import synthetic_model
from ipfs_accelerate_py.quantize.kv import CacheFormat
from ipfs_accelerate_py.quantize.quality import Quality, logit_cosine, paired_ratio, perplexity
from ipfs_accelerate_py.quantize.sources import open_source


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_perplexity_is_that_of_transformers(name: str) -> None:
    """The mean loss of the whole model in memory, with biases and tied embeddings too; a float16 cache changes nothing."""
    kind = model_classes()[name]
    model = synthetic_model(kind, kind.sizes["tiny"].config, 0)
    windows = np.random.default_rng(0).integers(0, 1000, (3, 80))
    with torch.no_grad():
        expected = float(model(torch.from_numpy(windows), labels=torch.from_numpy(windows)).loss)
    source = open_source(resolve(name, "tiny", "synthetic"))
    found = perplexity(source.config, windows, source.read)
    assert math.log(found.perplexity) == pytest.approx(expected, abs=1e-4)
    assert found.tokens == 3 * 79
    floats = perplexity(source.config, windows, source.read, cache=CacheFormat(16, 16, 32))
    assert np.allclose(floats.nats, found.nats, atol=1e-4)
    coarse = perplexity(source.config, windows, source.read, cache=CacheFormat(2, 2, 32))
    assert not np.allclose(coarse.nats, found.nats, atol=1e-4)


def test_the_interval_of_a_ratio() -> None:
    """Paired by window: a constant difference has no width, and Student's t gives the rest (two windows: 12.706)."""
    reference = Quality(np.array([2.0, 3.0]), 10)
    assert paired_ratio(Quality(np.array([2.1, 3.1]), 10), reference) == pytest.approx([math.exp(0.1)] * 3)
    ratio, low, high = paired_ratio(Quality(np.array([2.1, 3.3]), 10), reference)
    half = 12.7062 * np.std([0.1, 0.3], ddof=1) / math.sqrt(2)
    assert (ratio, low, high) == pytest.approx((math.exp(0.2), math.exp(0.2 - half), math.exp(0.2 + half)), rel=1e-4)


def test_the_cosine_of_a_model_with_itself_is_one() -> None:
    """And below it with other weights."""
    source = open_source(resolve("llama", "tiny", "synthetic"))
    assert logit_cosine(source.config, source.read, source.read).least == pytest.approx(1, abs=1e-5)
    draw = np.random.default_rng(0)

    def noisy(name: str) -> np.ndarray:
        values = source.read(name)
        return values + 0.2 * values.std() * draw.standard_normal(values.shape).astype(np.float32)

    assert 0.3 < logit_cosine(source.config, source.read, noisy).mean < 0.99
