"""What a backward pass needs that the forward pass saved, by layer.

The count is that of Korthikanti et al., 2022 (https://arxiv.org/abs/2205.05198), equation 1, for layers of any width, with or without
dropout, with fused attention (Dao et al., 2022, https://arxiv.org/abs/2205.14135: no scores are kept) or without. For 2-byte
activations, dropout, feed-forward 4h and unfused attention it is the paper's sbh (34 + 5as/h) bytes a layer, and sbh (10 + 24/t + 5as/(ht))
with tensor parallelism over t.
"""

from __future__ import annotations

from dataclasses import dataclass

from .stacks import Shape, Stack


@dataclass(frozen=True)
class Widths:
    """Bytes of an element that is saved: ``compute`` for inputs of products, ``norm`` for inputs of norms (automatic mixed precision
    computes those in float32). ``copies`` is how many copies of a shared input the products of an attention keep: under automatic
    mixed precision each casts its own."""

    compute: int
    norm: int
    copies: bool = False


FLOAT32 = Widths(4, 4)
AUTOMATIC_MIXED = Widths(2, 4, copies=True)
PURE_16_BIT = Widths(2, 2)


def layer_bytes(stack: Stack, batch: int, widths: Widths, *, dropout: bool = False, tensor: int = 1) -> float:
    """Saved bytes of one layer for ``batch`` items; products are split over ``tensor`` devices, norms and their outputs are not."""
    rows = batch * stack.tokens
    keys = stack.keys or stack.tokens
    norms = stack.attentions + 1
    split = stack.attentions * 2 * stack.width * rows  # queries, and what goes into the output product
    split += 2 * stack.key_value_width * rows
    if stack.cross_tokens is not None:
        split += 2 * stack.key_value_width * batch * stack.cross_tokens
    # torch computes unfused attention under automatic mixed precision in float32, from float32 copies of queries, keys and values.
    scores = 0.0 if stack.fused else stack.heads * rows * (keys + (stack.cross_tokens or 0))
    cast = split - stack.attentions * stack.width * rows if widths.copies and not stack.fused else 0
    score_bytes = max(widths.norm, widths.compute)
    inner = stack.feed_forward * rows
    split += (4 if stack.gated else 2 if stack.saves_input else 1) * inner
    inputs = (3 if widths.copies else 1) + (stack.attentions - 1) + ((2 if stack.gated else 1) if widths.copies else 1)
    whole = inputs * stack.hidden * rows * widths.compute
    whole += norms * (2 if stack.root_mean_square_norm else 1) * stack.hidden * rows * widths.norm
    if widths.copies and stack.cross_tokens is not None:
        whole += 2 * stack.hidden * batch * stack.cross_tokens * widths.compute
    split_bytes = split * widths.compute + scores * score_bytes + cast * 4
    if dropout:  # masks of one byte, and the scores after theirs
        whole += norms * stack.hidden * rows
        split_bytes += scores * (1 + score_bytes)
    return whole + split_bytes / tensor


def head_bytes(shape: Shape, batch: int, tensor: int = 1) -> tuple[float, float]:
    """Bytes of the scores over the vocabulary: the float32 log-probabilities that the loss saves, and what lives for a moment at the
    start of the backward pass (their gradient, twice)."""
    scores = 4 * batch * shape.head_tokens * shape.vocabulary / tensor
    return scores, 2 * scores


def model_bytes(
    shape: Shape,
    batch: int,
    widths: Widths,
    *,
    checkpointing: bool = False,
    tensor: int = 1,
    pipeline: int = 1,
) -> float:
    """Saved bytes of the layers that one device of a pipeline of ``pipeline`` stages holds, for one micro-batch of ``batch`` items.

    With checkpointing (Chen et al., 2016, https://arxiv.org/abs/1604.06174) each layer keeps its input, and the largest is computed anew.
    """
    items = batch * shape.passes
    total = largest = 0.0
    for stack in shape.stacks:
        one = layer_bytes(stack, items, widths, dropout=shape.dropout, tensor=tensor)
        kept = items * stack.tokens * stack.hidden * widths.norm if checkpointing else one
        total += stack.layers * kept / pipeline
        largest = max(largest, one)
    others = items * shape.other_elements * widths.compute
    return total + others + (largest if checkpointing else 0.0)


def backward_peak_bytes(shape: Shape, batch: int, widths: Widths, tensor: int = 1) -> float:
    """The gradients of activations that live at once, beside what was saved: those of the widest feed-forward."""
    items = batch * shape.passes
    return max(
        items * stack.tokens * (stack.feed_forward / tensor + 2 * stack.hidden) * widths.compute for stack in shape.stacks
    )


# Measured over formula, of what the forward pass of each class saves at float32 on the CPU (benchmarks/selection.py --activations). The
# rest has what the formula leaves out: embeddings, small norms and biases; X-CLIP's messages between frames and its prompts.
CORRECTION = {"xclip": 1.26, "clap": 1.07, "whisper": 1.05, "wav2vec2": 1.05, "detr": 1.05}
USUAL_CORRECTION = 1.02


def correction(model_class: str | None) -> float:
    return CORRECTION.get(model_class or "", USUAL_CORRECTION)
