"""Floating-point operations of a training step, by layer: the products alone, which are nearly all of them."""

from __future__ import annotations

from .stacks import Shape

FORWARD_AND_BACKWARD = 3  # a backward pass is two products for each of the forward's


def forward_flops(shape: Shape, batch: int) -> float:
    """Of ``batch`` items: 2 a multiply and add, for each matrix and row, and 4 x rows x keys x width for the attention of a layer
    (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361, table 1)."""
    items = batch * shape.passes
    total = 0.0
    for stack in shape.stacks:
        rows = items * stack.tokens
        total += stack.layers * 2 * rows * stack.layer_parameters
        keys = (stack.keys or stack.tokens) + (stack.cross_tokens or 0)
        total += stack.layers * 4 * rows * keys * stack.width
    return total + 2 * batch * shape.head_tokens * shape.vocabulary * shape.stacks[-1].hidden


def step_flops(shape: Shape, batch: int, *, checkpointing: bool = False) -> float:
    """Forward and backward of ``batch`` items; with checkpointing the forward runs twice."""
    return (FORWARD_AND_BACKWARD + checkpointing) * forward_flops(shape, batch)
