"""The planner: budgets kept to the byte, spent where the errors are, refused with the arithmetic."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.quantize import architecture
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import DEFAULT_BUDGETS, matrices, mixed, uniform


def config(name: str, size: str) -> dict[str, Any]:
    return {"model_type": name, **model_classes()[name].sizes[size].config}


SEVEN = config("llama", "7b")
SMALL = config("qwen2", "base")


def test_bytes_of_a_uniform_7b_by_hand() -> None:
    """Llama-2-7B at 2 bits: 226 matrices by rows of 4096 and 11008, 65 norms of 4096 float32."""
    row4096, row11008 = 1024 + 64 + 32 + 2, 2752 + 172 + 88 + 2  # 172 groups: 43 words of scales, 22 of zeros
    layer = (4 * 4096 + 2 * 11008) * row4096 + 4096 * row11008
    expected = 32 * layer + 2 * 32000 * row4096 + 65 * 4096 * 4
    assert uniform(SEVEN, Format(2)).stored_bytes(SEVEN) == expected


@pytest.mark.parametrize(("bits", "percent"), [(2, 86.0), (3, 79.0), (4, 72.0)])
def test_default_budgets_are_the_promised_reductions(bits: int, percent: float) -> None:
    """The mixed plans of a 7B model take at least that much less than float16, norms included."""
    plan = mixed(SEVEN, Format(bits), DEFAULT_BUDGETS[bits])
    assert 100 * (1 - plan.stored_bytes(SEVEN) / architecture.float16_bytes(SEVEN)) >= percent
    assert len(set(plan.formats.values())) > 1


@settings(deadline=None, max_examples=25)
@given(st.floats(2.25, 8.2), st.integers(0, 100))
def test_a_budget_is_kept_and_used(budget: float, seed: int) -> None:
    """For random errors: the bytes stay within it, the error is below the uniform plan's, and no room is left for a widest format."""
    draw = random.Random(seed)
    errors = {}
    for name in matrices(SMALL):
        first = draw.uniform(0.01, 1)
        errors[name] = {2: first, 3: first * draw.uniform(0.1, 0.9), 4: first * 0.05, 8: first * 0.001}
    plan = mixed(SMALL, Format(2), budget, errors)
    assert plan.bits_per_weight(SMALL) <= budget
    assert plan.sensitivity == "measured"
    plain = uniform(SMALL, Format(2))
    assert sum(errors[name][form.bits] for name, form in plan.formats.items()) <= sum(
        errors[name][form.bits] for name, form in plain.formats.items()
    )
    # Nothing that fits is left undone: no matrix could still get its next width.
    left = budget * sum(math.prod(shape) for shape in architecture.shapes(SMALL).values()) / 8 - plan.stored_bytes(SMALL)
    for name, shape in matrices(SMALL).items():
        wider = [bits for bits in (3, 4, 8) if bits > plan.formats[name].bits]
        prices = [Format(bits).stored_bytes(*shape) - plan.formats[name].stored_bytes(*shape) for bits in wider]
        assert not prices or max(prices) > left


def test_the_budget_goes_where_the_error_is() -> None:
    """One matrix with a hundred times the error of all the others is the first to get more bits."""
    errors = {name: {2: 0.01, 3: 0.003, 4: 0.001, 8: 0.0} for name in matrices(SMALL)}
    worst = "model.layers.11.mlp.up_proj.weight"
    errors[worst] = {bits: 100 * error for bits, error in errors[worst].items()}
    budget = uniform(SMALL, Format(2)).bits_per_weight(SMALL) + 0.06
    plan = mixed(SMALL, Format(2), budget, errors)
    assert plan.formats[worst].bits >= 4
    assert plan.formats["model.layers.10.mlp.up_proj.weight"].bits == 2


def test_too_small_a_budget_is_refused_with_what_it_takes() -> None:
    """The sentence says what the width takes; a budget of exactly that is a plan."""
    with pytest.raises(UserError, match=r"2\.1 bits a weight is too small: 2 bits in groups of 64 take 2\.193 of this model"):
        mixed(SEVEN, Format(2), 2.1)
    assert mixed(SEVEN, Format(2), 2.193).bits_per_weight(SEVEN) <= 2.193


@pytest.mark.parametrize(("name", "size"), [("llama", "tiny"), ("llama", "small"), ("qwen2", "tiny"), ("qwen2", "base")])
def test_shapes_are_those_of_transformers(name: str, size: str) -> None:
    """Every tensor's name and shape, and the order of the forward pass, against the model that transformers builds."""
    import torch

    kind = model_classes()[name]
    with torch.device("meta"):
        model = kind.build(kind.config(kind.sizes[size].config))
    built = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    assert architecture.shapes(config(name, size)) == built


def test_an_unsupported_model_says_which_part() -> None:
    """Another architecture, a vision tower, and a mixture of experts."""
    with pytest.raises(UserError, match="type 'bert'; low-bit weights are made for decoders of type llama, qwen2, mistral"):
        architecture.check_supported({"model_type": "bert"}, "m")
    tiny = config("llama", "tiny")
    shapes = architecture.shapes(tiny)
    with pytest.raises(UserError, match=r"has a vision tower \(tensor 'vision_tower\.a'\)"):
        architecture.check_tensors(tiny, {**shapes, "vision_tower.a": (1,)}, "m")
    with pytest.raises(UserError, match="a mixture of experts"):
        architecture.check_tensors(tiny, {**shapes, "model.layers.0.block_sparse_moe.gate.weight": (1,)}, "m")
    with pytest.raises(UserError, match=r"lacks 1 of its tensors, first 'model\.norm\.weight'"):
        architecture.check_tensors(tiny, {key: shape for key, shape in shapes.items() if key != "model.norm.weight"}, "m")
