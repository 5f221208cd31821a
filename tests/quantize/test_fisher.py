"""What an error of each matrix is said to cost, against what it does cost: the divergence of the model's own outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoConfig, AutoModelForCausalLM

from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize.fisher import fisher
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import matrices
from ipfs_accelerate_py.quantize.sensitivity import measure
from ipfs_accelerate_py.quantize.solvers import SOLVERS, quantize_matrix
from ipfs_accelerate_py.quantize.sources import Source, open_source

BITS = 3


def whole_model(source: Source) -> Any:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**source.config)).eval()
    state = {
        name: torch.from_numpy(source.read(name)) for name in model.state_dict() if name != "lm_head.weight" or not tied(source)
    }
    model.load_state_dict(state, strict=False)
    return model


def tied(source: Source) -> bool:
    return bool(source.config.get("tie_word_embeddings", False))


def log_chances(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids).logits.double().log_softmax(-1)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_cost_of_each_matrix_is_near_its_divergence(name: str) -> None:
    """Each matrix rounded alone: the Kullback-Leibler divergence of the outputs is near what was foretold, and so is the order."""
    source = open_source(resolve(name, "tiny", "synthetic"))
    ids = np.random.default_rng(5).integers(0, source.config["vocab_size"], (16, 64))
    costs = fisher(source, ids, "cpu")
    model = whole_model(source)
    parameters = dict(model.named_parameters())
    before = log_chances(model, torch.from_numpy(ids))
    foretold, found = [], []
    for matrix in matrices(source.config):
        weight, inputs = parameters[matrix].data, costs.inputs[matrix]
        lost = weight - torch.from_numpy(quantize_matrix(weight, Format(BITS, 32), SOLVERS["rtn"]).dequantize())
        foretold.append(costs.nats[matrix] * float((lost.square() @ inputs).sum() / (weight.square() @ inputs).sum()))
        parameters[matrix].data = weight - lost
        after = log_chances(model, torch.from_numpy(ids))
        parameters[matrix].data = weight
        found.append(float((before.exp() * (before - after)).sum(-1).mean()))
    assert spearmanr(foretold, found).statistic > 0.9
    ratios = np.array(foretold) / np.array(found)
    assert 0.5 < np.median(ratios) < 2
    assert ratios.min() > 0.1 and ratios.max() < 3  # least for keys: what their errors do through a softmax partly cancels


def test_a_budget_goes_by_nats() -> None:
    """What a plan weighs is each matrix's cost times its relative error on the inputs, which falls with every bit."""
    source = open_source(resolve("llama", "tiny", "synthetic"))
    costs = fisher(source, np.arange(256).reshape(4, 64), "cpu")
    found = measure(source, 32, (2, 4), costs, "cpu", lambda name: None)
    name = "model.layers.1.mlp.down_proj.weight"
    weight, inputs = torch.from_numpy(source.read(name)), costs.inputs[name]
    for bits in (2, 4):
        lost = weight - torch.from_numpy(quantize_matrix(weight, Format(bits, 32), SOLVERS["rtn"], inputs).dequantize())
        relative = float((lost.square() @ inputs).sum() / (weight.square() @ inputs).sum())
        assert found[name][bits] == pytest.approx(costs.nats[name] * relative, rel=1e-3)
    assert all(cost[4] < cost[2] for cost in found.values())
