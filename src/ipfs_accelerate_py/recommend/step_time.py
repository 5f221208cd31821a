"""Seconds of a training step: the predicted time of a micro-batch on one device, collectives by alpha-beta, and the bubble.

What each strategy sends follows ZeRO (Rajbhandari et al., 2020, section 7): gradients are reduced once a step (DDP, ZeRO-1), or scattered
each micro-step (ZeRO-2, ZeRO-3, FSDP), the last two gather weights twice a micro-step as well. Tensor parallelism reduces activations
four times a layer (Shoeybi et al., 2019, https://arxiv.org/abs/1909.08053), a pipeline idles (p - 1) / m of its time (Narayanan et
al., 2021, https://arxiv.org/abs/2104.04473).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..predict.prediction import Interval
from .collectives import Communication
from .layout import Layout
from .stacks import Shape

BUCKET_BYTES = 25 * 2**20  # torch's default of a gradient bucket (DistributedDataParallel, bucket_cap_mb)
# What Python's hooks and the small gathers of FSDP cost the host for each block and micro-step, hidden where the GPU is behind. Fitted to
# the four runs in benchmarks/results/distributed-training-2x-nvidia-h200.json, so their errors say nothing of others.
FSDP_HOST_S = 6e-3
PINNED_COPY_BYTES_PER_S = 20e9  # host to device, PCIe 4.0 x16's 31.5 GB/s less protocol: an assumption, not measured


@dataclass(frozen=True)
class StepTime:
    """Seconds; ``communication`` is what the computing does not hide."""

    compute: Interval
    communication: Interval
    total: Interval

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _sum(one: Interval, other: Interval) -> Interval:
    return Interval(one.value + other.value, one.low + other.low, one.high + other.high)


def compute_seconds(layout: Layout, micro_step: Interval, floor: float = 0.0) -> Interval:
    """Of one device, all micro-batches of a step. ``micro_step`` is what one device alone takes for one micro-batch, update included: an
    upper bound where gradients accumulate, since there is then one update for several of them. ``floor`` is the share of it, 0 to 1,
    that starts kernels and so is not divided by a tensor degree. Checkpointing computes the forward pass, a third of the work, again."""
    divided = (floor + (1 - floor) / layout.tensor) / layout.pipeline
    bubble = (layout.accumulation + layout.pipeline - 1) / layout.accumulation
    return micro_step.scaled(layout.accumulation * divided * bubble * (4 / 3 if layout.checkpointing else 1))


def communication_seconds(shape: Shape, layout: Layout, network: Communication | None) -> float:
    """All of it, hidden or not. ``network`` None where one device trains."""
    if layout.devices == 1 or network is None:
        return 0.0
    own = shape.parameters / layout.tensor / layout.pipeline
    element = 4 if layout.precision == "float32" else 2
    lines = network.lines
    steps, blocks = layout.accumulation, max(1, shape.layers // layout.pipeline) + 1
    total = 0.0
    if layout.data > 1:
        if layout.strategy == "fsdp" or layout.sharded or layout.zero_stage == 3:
            gather = lines["all_gather"].seconds(element * own / blocks) * blocks
            scatter = lines["reduce_scatter"].seconds((2 if layout.zero_stage else 4) * own / blocks) * blocks
            total += steps * (2 * gather + scatter)
        else:
            size = own * (element if layout.zero_stage else 4)
            buckets = max(1, round(size / BUCKET_BYTES))
            if layout.zero_stage:
                times = steps if layout.zero_stage == 2 else 1
                total += times * buckets * lines["reduce_scatter"].seconds(size / buckets)
                total += lines["all_gather"].seconds(element * own)
            else:
                total += buckets * lines["all_reduce"].seconds(size / buckets)
    items = layout.micro_batch * shape.passes
    if layout.tensor > 1:
        for stack in shape.stacks:
            size = items * stack.tokens * stack.hidden * element
            reductions = 2 * (stack.attentions + 1) * stack.layers / layout.pipeline
            total += steps * reductions * lines["all_reduce"].seconds(size)
    if layout.pipeline > 1:
        stack = shape.stacks[0]
        total += 2 * (steps + layout.pipeline - 1) * lines["all_gather"].seconds(items * stack.tokens * stack.hidden * element)
    return total


def step_seconds(
    shape: Shape, layout: Layout, micro_step: Interval, network: Communication | None, floor: float = 0.0
) -> StepTime:
    """A step on one device of the layout. On the CPU the collectives take the cores that would compute, so nothing is hidden; on GPUs the
    range is from all that can be hidden behind the backward pass to none, and the value lies between."""
    compute = compute_seconds(layout, micro_step, floor)
    sent = communication_seconds(shape, layout, network)
    hideable = 0.0 if network is None or network.backend == "gloo" or layout.tensor * layout.pipeline > 1 else 2 / 3
    exposed_low = max(0.0, sent - hideable * compute.value)
    exposed = Interval((exposed_low + sent) / 2, exposed_low, sent)
    if network is not None and network.source != "measured":  # a link seldom reaches more than it states, and often half
        exposed = Interval(exposed.value, exposed.low, 2 * exposed.high)
    total = _sum(compute, exposed)
    if layout.strategy == "fsdp" and network is not None and network.backend != "gloo":
        hosted = FSDP_HOST_S * layout.accumulation * (shape.layers + 1)
        total = _sum(total, Interval(hosted / 2, 0.0, hosted))
    if layout.offload:
        element = 4 if layout.precision == "float32" else 2
        copied = 2 * element * shape.parameters / layout.devices / PINNED_COPY_BYTES_PER_S
        # The update runs on the host: DeepSpeed and torch both compute Adam there, at the memory's pace.
        total = _sum(total, Interval(2 * copied, copied, 8 * copied))
    return StepTime(compute, exposed, total)
