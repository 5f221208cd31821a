"""Which classes leave parameters without a gradient: data-parallel training refuses its second step unless it is told."""

from __future__ import annotations

import pytest

from ipfs_accelerate_py.models.registry import model_classes


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_leaves_unused_is_what_the_loss_does(name):
    """``leaves_unused`` is set exactly where a backward pass of the tiny model leaves a parameter without a gradient."""
    import torch

    kind = model_classes()[name]
    config = kind.config(kind.sizes["tiny"].config)
    torch.manual_seed(0)
    model = kind.build(config)
    inputs = {key: torch.from_numpy(value) for key, value in kind.inputs(config, 2, None, 0).items()}
    kind.loss(model, inputs).backward()
    unused = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert kind.leaves_unused == bool(unused), unused
