"""What is counted: operators, the phases they run in, and what a whole model comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

KINDS = (
    "matmul",  # a matrix product, of activations with weights or with each other
    "conv",  # a convolution
    "softmax",
    "norm",  # layer, RMS, batch and group normalisation
    "activation",  # GELU, SiLU, ReLU, sigmoid, ...
    "elementwise",  # additions, products, masks, rotary positions
    "gather",  # rows of a table by index
    "reduce",  # sums, means and maxima along an axis
    "copy",  # a transposition, a concatenation or a cache that is written
    "optimizer",
    "unknown",  # of a graph, an operator that the counter does not know
)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator, which runs ``count`` times in a row of equal layers. Everything else is for a single run.

    ``shape`` is (products, rows, inner, columns) of a matrix product or of the one that a convolution amounts to, None for others.
    ``fused`` names the attention or the matrix product that engines with such a kernel do this operator within. Weights are part of
    ``bytes_read``, and are given alone as ``weights_bytes``. A multiplication and its addition are 2 FLOPs.
    """

    kind: str
    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    weights_bytes: int = 0
    count: int = 1
    shape: tuple[int, int, int, int] | None = None
    fused: str | None = None


@dataclass(frozen=True)
class PhaseCounts:
    """A phase of an iteration. The sums are those of one run; a phase runs ``runs`` times (decode: once for each further token)."""

    name: str
    operators: tuple[Operator, ...]
    runs: int = 1

    @cached_property
    def flops(self) -> int:
        return sum(each.flops * each.count for each in self.operators)

    @cached_property
    def matmul_flops(self) -> int:
        """Of matrix products and convolutions alone, exact: additions of biases left out."""
        return sum(each.flops * each.count for each in self.operators if each.kind in ("matmul", "conv"))

    @cached_property
    def bytes_read(self) -> int:
        return sum(each.bytes_read * each.count for each in self.operators)

    @cached_property
    def bytes_written(self) -> int:
        return sum(each.bytes_written * each.count for each in self.operators)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of weights that are read."""
        return sum(each.weights_bytes * each.count for each in self.operators)

    @cached_property
    def kernels(self) -> int:
        """Operators started, before an engine fuses any."""
        return sum(each.count for each in self.operators)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Operators that the counter does not know, sorted, each once."""
        return tuple(sorted({each.name for each in self.operators if each.kind == "unknown"}))


@dataclass(frozen=True)
class ModelCounts:
    """A model at one batch size, length, precision and mode.

    ``weights_bytes`` are those of the stored weights at this precision; ``kv_cache_bytes`` those of the keys and values of all
    layers, cross-attention included, 0 without generation; ``largest_activation_bytes`` the most that one operator reads and
    writes of activations.
    """

    parameters: int
    weights_bytes: int
    kv_cache_bytes: int
    largest_activation_bytes: int
    phases: dict[str, PhaseCounts]
    input_bytes: int = 0
    output_bytes: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def flops(self) -> int:
        """Of a whole iteration."""
        return sum(phase.flops * phase.runs for phase in self.phases.values())

    @property
    def bytes_moved(self) -> int:
        """Read and written in a whole iteration, every operator on its own."""
        return sum((phase.bytes_read + phase.bytes_written) * phase.runs for phase in self.phases.values())

    @property
    def kernels(self) -> int:
        return sum(phase.kernels * phase.runs for phase in self.phases.values())
