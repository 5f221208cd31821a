"""Memory of inference: exact parts by hand."""

from __future__ import annotations

import pytest

from ipfs_accelerate_py.graph import count, describe
from ipfs_accelerate_py.predict.memory import largest_weight_bytes
from ipfs_accelerate_py.recommend.memory import HOST, inference_memory

LLAMA = describe("llama-7b")


def test_weights_and_cache_of_llama_7b():
    """6.74 billion parameters of 2 bytes; 2 x 32 layers x 4096 x 2 bytes a token of cache."""
    counts = count(LLAMA, sequence_length=1000, new_tokens=24, precision="float16")
    memory = inference_memory(counts, "torch", "device")
    assert memory.weights == pytest.approx(2 * 6_738_415_616, rel=1e-3)
    assert memory.kv_cache == pytest.approx(2 * 32 * 4096 * 2 * 1024, rel=0.01)
    assert memory.total == memory.weights + memory.kv_cache + memory.activations + memory.workspace


def test_batch_and_length_grow_the_cache_alone():
    """Twice the batch is twice the cache; the weights stay."""
    one, two = (inference_memory(count(LLAMA, batch_size=batch, sequence_length=512), "torch", "host") for batch in (1, 2))
    assert two.kv_cache == 2 * one.kv_cache
    assert two.weights == one.weights


def test_engines_hold_copies_while_loading():
    """onnxruntime's third copy is in its workspace, torch's base alone is in its."""
    counts = count(describe("bert-base-uncased"))
    torch, runtime = (inference_memory(counts, engine, "host") for engine in ("torch", "onnxruntime"))
    assert torch.workspace == HOST["torch"].base_bytes
    assert runtime.workspace == HOST["onnxruntime"].base_bytes + 2 * counts.weights_bytes


def test_the_largest_weight_is_the_embedding():
    """32000 x 4096 values of 4 bytes for Llama, the buffer that WebGPU must allow."""
    assert largest_weight_bytes(count(LLAMA)) == 32000 * 4096 * 4
