"""Peak memory of one device in a training step: weights, gradients, optimizer states, activations and workspace, by moment.

Model states follow ZeRO (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054, section 3): 16 bytes a parameter with Adam, whether
float32 (4 + 4 + 8) or 16-bit with float32 copies (2 + 2 + 12), of which each stage divides more among the ranks. Activations are those
of ``activations``. The peak is the largest of three moments, since activations are freed while gradients come: the start of the backward
pass, the gradient of an embedding that is also the output matrix, and the optimizer's step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from .activations import (
    AUTOMATIC_MIXED,
    FLOAT32,
    PURE_16_BIT,
    Widths,
    backward_peak_bytes,
    correction,
    head_bytes,
    model_bytes,
)
from .layout import Layout
from .stacks import Shape, Stack

# Outside torch's allocator: an assumption for a GPU's context, cuBLAS workspace and NCCL buffers (0.3 to 0.6 GB are usual); not measured.
CONTEXT_BYTES = {"cuda": 600_000_000, "rocm": 600_000_000, "mps": 0, "cpu": 0}


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device. ``peak`` is less than the sum where activations and gradients do not peak together; ``host`` is what offloading
    keeps in the host's memory for this device."""

    weights: float
    gradients: float
    optimizer_states: float
    activations: float
    workspace: float
    peak: float
    host: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {f"{name}_bytes": round(value) for name, value in asdict(self).items()}


def widths(layout: Layout) -> Widths:
    """Bytes of saved elements: DeepSpeed's weights are 16-bit themselves, torch's are cast at each product."""
    if layout.precision == "float32":
        return FLOAT32
    return PURE_16_BIT if layout.zero_stage else AUTOMATIC_MIXED


def state_bytes(parameters: float, layout: Layout) -> tuple[float, float, float]:
    """Weights, gradients and optimizer states of one device, with ``parameters`` counted before any sharding."""
    own = parameters / layout.tensor / layout.pipeline
    ranks = layout.data
    if layout.zero_stage and layout.precision != "float32":
        weight, gradient, states = 2.0, 2.0, 12.0
    else:
        weight, gradient, states = 4.0, 4.0, 8.0
    stage = 3 if layout.strategy == "fsdp" or layout.sharded else layout.zero_stage
    return (
        weight * own / (ranks if stage >= 3 else 1),
        gradient * own / (ranks if stage >= 2 else 1),
        states * own / (ranks if stage >= 1 else 1),
    )


def gathered_bytes(shape: Shape, layout: Layout) -> float:
    """What a sharded run holds unsharded: two layers (the one that computes and the one that is fetched), one layer's gradient, and the
    parameters outside the layers, which torch keeps through the step, with their gradient."""
    if not (layout.strategy == "fsdp" or layout.sharded or layout.zero_stage == 3):
        return 0.0
    split = layout.tensor * layout.pipeline
    element = 4 if layout.precision == "float32" else 2
    largest = max(stack.layer_parameters for stack in shape.stacks) / split
    outside = (shape.parameters - shape.stack_parameters) / split
    return 3 * element * largest + 2 * element * outside


def training_memory(shape: Shape, layout: Layout, model_class: str | None = None, *, platform: str = "cuda") -> TrainingMemory:
    """The peak of one device. ``platform`` decides the optimizer's own workspace: fused on a GPU, one tensor at a time on the CPU."""
    shape = replace(
        shape, stacks=tuple(_as_trained(stack, shape.dropout, layout.precision, platform) for stack in shape.stacks)
    )
    weights, gradients, states = state_bytes(shape.parameters, layout)
    host = 0.0
    if layout.offload:  # states and gradients go to the host (ZeRO-Offload), from stage 3 on weights as well
        host, states = states, 0.0
        if layout.zero_stage != 1:
            host, gradients = host + gradients, 0.0
        if layout.strategy == "fsdp" or layout.zero_stage == 3:
            host, weights = host + weights, 0.0
    wide, micro = widths(layout), layout.micro_batch
    in_flight = min(layout.pipeline, layout.accumulation) if layout.pipeline > 1 else 1
    saved = model_bytes(shape, micro, wide, checkpointing=layout.checkpointing, tensor=layout.tensor, pipeline=layout.pipeline)
    head, head_moment = head_bytes(shape, micro, layout.tensor)
    activations = in_flight * saved * correction(model_class) + head
    moment = max(head_moment, backward_peak_bytes(shape, micro, wide, layout.tensor))
    cast = 0.0
    gathered = gathered_bytes(shape, layout)
    if wide.copies and not gathered:  # autocast keeps a 16-bit copy of each matrix until the backward pass ends
        cast = 2.0 * shape.multiplied_parameters / layout.tensor / layout.pipeline
    # DDP's buckets (which gradients are views of, in the configurations that are printed) and DeepSpeed's buffers are always there.
    always = layout.zero_stage or (layout.data > 1 and not gathered)
    kept = gradients if layout.accumulation > 1 or always else 0.0
    largest = 4.0 * shape.largest_tensor / layout.tensor / (layout.data if gathered else 1)
    at_start = activations + moment + cast + gathered + kept
    at_embedding = _at_embedding(shape, layout, model_class, wide, cast, gradients, kept if always else 0.0, bool(gathered))
    at_update = gradients + (2 * largest if platform == "cpu" else 0.0) + (gathered / 2 if gathered else 0.0)
    context = CONTEXT_BYTES.get(platform, 0)
    moments = max(at_start, at_embedding, at_update)
    workspace = moment + cast + gathered + context
    return TrainingMemory(
        weights=weights,
        gradients=gradients,
        optimizer_states=states,
        activations=activations,
        workspace=workspace,
        peak=weights + states + moments + context,
        host=host,
    )


def _as_trained(stack: Stack, dropout: bool, precision: str, platform: str) -> Stack:
    """The stack with the attention that torch has for it. On processors none is fused with dropout. On GPUs shared heads (``enable_gqa``
    of scaled_dot_product_attention, https://docs.pytorch.org/docs/stable/nn.functional.html) are fused by FlashAttention alone, which
    takes 16 bits alone: at float32 the scores are written, and keys and values repeated for each head."""
    if platform == "cpu":
        return replace(stack, fused=False) if dropout else stack
    if precision == "float32" and stack.key_value_width < stack.width:
        return replace(stack, fused=False, key_value_heads=0)
    return stack


def _at_embedding(
    shape: Shape,
    layout: Layout,
    model_class: str | None,
    wide: Widths,
    cast: float,
    gradients: float,
    buckets: float,
    gathered: bool,
) -> float:
    """The moment when the embedding gets its gradient: of one that is used twice there are two gradients and their sum. Where the encoder
    comes after that, its activations are still there. ``buckets``: gradients that are always there."""
    split = layout.tensor * layout.pipeline
    summed = 3 if shape.tied or shape.passes > 1 else 1
    later = done = 0.0
    if shape.tied and len(shape.stacks) > 1:
        later = model_bytes(_encoder(shape), layout.micro_batch, wide, checkpointing=layout.checkpointing, tensor=layout.tensor)
        later *= correction(model_class)
        done = shape.stacks[-1].layers * shape.stacks[-1].layer_parameters / max(1, shape.parameters)
    if gathered:  # what lies outside the layers is whole: weights, gradients, and the float32 copy of these that is scattered
        element = 4 if layout.precision == "float32" else 2
        outside = (shape.parameters - shape.stack_parameters) / split
        return later + gradients + (element + 4) * outside + summed * element * shape.largest_tensor / split
    largest = 4.0 * shape.largest_tensor / layout.tensor
    if buckets:
        return later + buckets + summed * largest
    return later + gradients * done + summed * largest + cast if later else 0.0


def _encoder(shape: Shape) -> Shape:
    return replace(shape, stacks=shape.stacks[:-1])
