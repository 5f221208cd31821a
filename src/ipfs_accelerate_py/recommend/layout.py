"""How a training run is spread over devices: a strategy with its degrees, and every one that a number of devices allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .stacks import Shape

STRATEGIES = ("single", "ddp", "zero-1", "zero-2", "fsdp", "zero-3", "tensor", "pipeline")  # simplest first, which decides ties


@dataclass(frozen=True, kw_only=True)
class Layout:
    """``data`` ranks see different items; ``tensor`` devices share each matrix, ``pipeline`` ones the layers. ``sharded`` divides model
    states over the data ranks of a tensor or pipeline layout (ZeRO-3's way). ``micro_batch`` items go through a data rank at once,
    ``accumulation`` times before each update."""

    strategy: str
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    sharded: bool = False
    micro_batch: int = 1
    accumulation: int = 1
    checkpointing: bool = False
    offload: bool = False
    precision: str = "bfloat16"

    @property
    def devices(self) -> int:
        return self.data * self.tensor * self.pipeline

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's stage; 0 for torch's own strategies."""
        return int(self.strategy[-1]) if self.strategy.startswith("zero-") else 0

    @property
    def label(self) -> str:
        """For people: ``fsdp over 4``, ``tensor 2 x pipeline 2``."""
        more = " with checkpointing" * self.checkpointing + " with offload" * self.offload
        if self.strategy == "single":
            return f"one device{more}"
        if self.tensor * self.pipeline == 1:
            return f"{self.strategy} over {self.data}{more}"
        parts = [f"{name} {degree}" for name, degree in (("tensor", self.tensor), ("pipeline", self.pipeline)) if degree > 1]
        if self.data > 1:
            parts.append(f"{'fsdp' if self.sharded else 'ddp'} {self.data}")
        return " x ".join(parts) + more

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"devices": self.devices}


def degrees(shape: Shape, devices: int) -> Iterator[Layout]:
    """Every strategy and its degrees for exactly this many devices. A tensor degree divides the heads of every stack; a pipeline
    needs one stack with a layer for each stage at least."""
    if devices == 1:
        yield Layout(strategy="single")
        return
    for strategy in ("ddp", "zero-1", "zero-2", "fsdp", "zero-3"):
        yield Layout(strategy=strategy, data=devices)
    for tensor in divisors(devices):
        for pipeline in divisors(devices // tensor):
            if tensor * pipeline == 1:
                continue
            if any(stack.heads % tensor or (stack.key_value_heads or stack.heads) % tensor for stack in shape.stacks):
                continue
            if pipeline > 1 and (len(shape.stacks) > 1 or shape.stacks[0].layers < pipeline):
                continue
            data = devices // tensor // pipeline
            strategy = "tensor" if tensor > 1 else "pipeline"
            for sharded in (False, True) if data > 1 else (False,):
                yield Layout(strategy=strategy, data=data, tensor=tensor, pipeline=pipeline, sharded=sharded)


def divisors(number: int) -> list[int]:
    return [value for value in range(1, number + 1) if number % value == 0]
