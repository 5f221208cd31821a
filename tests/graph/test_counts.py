"""The counts against independent ones: transformers' parameters, torch's own counter of FLOPs, and sums by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import count, describe
from ipfs_accelerate_py.models.registry import model_classes

PRESETS = [(name, size) for name, kind in model_classes().items() for size in kind.sizes]


@pytest.mark.parametrize(("name", "size"), PRESETS)
def test_parameters_are_those_of_transformers(name: str, size: str) -> None:
    """Of every preset, the 7 billion ones too: the model is built without memory for its weights."""
    torch = pytest.importorskip("torch")
    kind = model_classes()[name]
    with torch.device("meta"):
        model = kind.build(kind.config(kind.sizes[size].config))
    assert describe(name, size).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", sorted(model_classes()))
def test_matrix_products_and_convolutions_are_exactly_torchs(name: str, batch_size: int) -> None:
    """torch's FLOP counter on the modules that are really run gives the same number, phase by phase."""
    pytest.importorskip("torch")
    measured = flops_of_graphs(name, batch_size, sequence_length=11, new_tokens=5)
    counts = count(describe(name, "tiny"), batch_size=batch_size, sequence_length=11, new_tokens=5)
    assert {phase: each.matmul_flops for phase, each in counts.phases.items()} == measured
    assert {phase: each.runs for phase, each in counts.phases.items()} == dict.fromkeys(measured, 1) | (
        {"decode": 4} if "decode" in measured else {}
    )


def flops_of_graphs(name: str, batch_size: int, sequence_length: int, new_tokens: int) -> dict[str, int]:
    """FLOPs of each phase by torch.utils.flop_counter, on the graphs that a launch of the class runs."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    kind = model_classes()[name]
    config = kind.config(kind.sizes["tiny"].config)
    torch.manual_seed(0)
    model = kind.build(config).requires_grad_(False)
    inputs = kind.inputs(config, batch_size, sequence_length if kind.default_sequence_length else None, seed=0)
    graphs = kind.graphs(model, inputs, new_tokens)
    generation = kind.generation(config)
    found: dict[str, int] = {}

    def run(phase: str, graph: Any, arrays: dict[str, np.ndarray]) -> None:
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # attention as the matrix products that it is made of
            graph.module(*(torch.from_numpy(arrays[each]) for each in graph.inputs))
        found[phase] = counter.get_total_flops()

    for graph_name, graph in graphs.items():
        if graph_name != "decoder":
            run({"model": "forward"}.get(graph_name, graph_name), graph, dict(graph.inputs))
            continue
        assert generation is not None
        run("prefill", graph, dict(graph.inputs))
        one = {"input_ids": graph.inputs["input_ids"][:, :1], "positions": graph.inputs["positions"][-1:] + 1}
        run("decode", graph, {**graph.inputs, **one})
    return found


def test_a_linear_layer_by_hand() -> None:
    """BERT base, 128 tokens: 12 layers of 4 projections, 2 feed-forward matrices and 2 products of the attention, by hand."""
    width, hidden, length = 768, 3072, 128
    layer = 2 * length * (4 * width * width + 2 * width * hidden) + 2 * 2 * length * length * width
    assert count(describe("bert-base-uncased"), sequence_length=128).phases["forward"].matmul_flops == 12 * layer


def test_decode_reads_all_weights_once_and_the_whole_cache() -> None:
    """Llama-2-7B at float16, by hand: weights but for the table of embeddings, and 2 caches of 32 layers of 4096 numbers a position."""
    counts = count(describe("llama-7b"), sequence_length=1000, new_tokens=24, precision="float16")
    assert counts.parameters == 6_738_415_616
    assert counts.weights_bytes == 2 * 6_738_415_616
    assert counts.kv_cache_bytes == 2 * 32 * 4096 * 1024 * 2
    decode = counts.phases["decode"]
    assert decode.weights_bytes == 2 * (6_738_415_616 - 32000 * 4096)
    assert decode.runs == 23
    assert decode.bytes_read > decode.weights_bytes + counts.kv_cache_bytes


def test_llama_2_70b_is_counted_as_what_it_is() -> None:
    """The published 68,976,648,192 parameters, with 8 key-value heads: a cache an eighth of that of 64."""
    description = describe("Llama-2-70B")
    assert description.parameters == 68_976_648_192
    assert (description.layers, description.key_value_heads, description.head_size) == (80, 8, 128)
    counts = count(description, batch_size=2, sequence_length=4000, new_tokens=96, precision="float16")
    assert counts.kv_cache_bytes == 2 * 2 * 80 * 8 * 128 * 4096 * 2


@pytest.mark.parametrize(
    ("precision", "bytes_each"), [("float32", 4.0), ("float16", 2.0), ("bfloat16", 2.0), ("int8", 1.0), ("int4", 0.5 + 4 / 32)]
)
def test_weights_by_precision(precision: str, bytes_each: float) -> None:
    """The weights of matrix products have the bits of the precision; a bias stays float32 when they are quantized."""
    counts = count(describe("bert", "base"), precision=precision)
    matrices = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    others = counts.parameters - matrices
    expected = matrices * bytes_each + others * (bytes_each if bytes_each >= 2 else 4)
    assert counts.weights_bytes == pytest.approx(expected, rel=1e-5)


def test_training_is_three_forward_passes_and_an_optimizer_step() -> None:
    """Backward costs twice the matrix products of forward, and AdamW moves seven float32 numbers a parameter."""
    counts = count(describe("llama", "tiny"), sequence_length=16, mode="training")
    assert counts.phases["backward"].matmul_flops == 2 * counts.phases["forward"].matmul_flops
    optimizer = counts.phases["optimizer"]
    assert optimizer.bytes_read + optimizer.bytes_written == 28 * counts.parameters


def test_flops_grow_with_batch_and_length() -> None:
    """Twice the batch is twice the work; twice the length is more than twice, for the attention's sake."""
    description = describe("bert", "base")
    once = count(description, batch_size=1, sequence_length=64).flops
    assert count(description, batch_size=2, sequence_length=64).flops == pytest.approx(2 * once, rel=0.001)
    assert count(description, batch_size=1, sequence_length=128).flops > 2 * once


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 0}, "batch size must be a whole number of at least 1, not 0"),
        ({"sequence_length": -3}, "sequence length must be a whole number of at least 1, not -3"),
        ({"precision": "float8"}, "Unknown precision 'float8'"),
        ({"mode": "dreaming"}, "Unknown mode 'dreaming'"),
    ],
)
def test_impossible_work_is_refused_in_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    """Sizes below 1, and precisions and modes that are none."""
    with pytest.raises(UserError, match=sentence):
        count(describe("bert", "tiny"), **wrong)
