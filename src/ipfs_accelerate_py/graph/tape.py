"""A record of the operators that a model runs, and of its parameters, as a class's formulas name them one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .operator import Operator, PhaseCounts

ACTIVATION_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 4, "int4": 4}
GROUP = 32  # weights that share a float32 scale at int4, as models.precision quantizes them
FLOPS_OF = {"softmax": 5, "norm": 8, "activation": 8, "elementwise": 1, "reduce": 1, "gather": 0, "copy": 0}


def weight_bytes(elements: int, precision: str, quantized: bool) -> int:
    """Bytes of ``elements`` weights. Only those of matrix products are ever ``quantized``: at int8 with a scale and a zero for all."""
    if quantized and precision == "int8":
        return elements + 8
    if quantized and precision == "int4":
        return math.ceil(elements / 2) + 4 * math.ceil(elements / GROUP)
    return elements * ACTIVATION_BYTES[precision]


class Tape:
    """Records at one ``precision``. Parameters are registered by name, so that a phase may use again what an earlier one used."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.element = ACTIVATION_BYTES[precision]
        self.parameters: dict[str, int] = {}
        self.weights: dict[str, int] = {}  # bytes
        self.phases: dict[str, PhaseCounts] = {}
        self._operators: list[Operator] = []
        self._scope: list[str] = []
        self._times = 1
        self._fused: str | None = None

    @contextmanager
    def phase(self, name: str, runs: int = 1) -> Iterator[None]:
        """What is recorded inside is the phase ``name``, which runs ``runs`` times an iteration. None if ``runs`` is 0."""
        self._operators = []
        yield
        if runs:
            self.phases[name] = PhaseCounts(name, tuple(self._operators), runs)

    @contextmanager
    def scope(self, name: str, times: int = 1) -> Iterator[None]:
        """A part of the model, of which there are ``times`` equal ones after each other."""
        before = self._times
        self._scope.append(name)
        self._times *= times
        yield
        self._scope.pop()
        self._times = before

    @contextmanager
    def fused(self, name: str) -> Iterator[None]:
        """What engines with a kernel for ``name`` (attention) do as one."""
        self._fused = name
        yield
        self._fused = None

    def parameter(self, name: str, elements: int, quantized: bool = False) -> int:
        """Register parameters, used or not; their bytes in one of the equal parts. A name that is known keeps its registration."""
        key = ".".join((*self._scope, name))
        size = weight_bytes(elements, self.precision, quantized)
        if key not in self.parameters:
            self.parameters[key] = elements * self._times
            self.weights[key] = size * self._times
        return size

    def linear(self, name: str, rows: int, inner: int, columns: int, bias: bool = True, tied: bool = False) -> None:
        """``rows`` vectors of ``inner`` numbers times a matrix of weights. ``tied``: the weights are those of an embedding."""
        if self._times * rows == 0:
            return
        if tied:
            # Read as they lie in the table of embeddings, unless quantizing made a matrix of its own.
            size = weight_bytes(inner * columns, self.precision, True)
        else:
            size = self.parameter(f"{name}.weight", inner * columns, quantized=True)
        if bias:
            size += self.parameter(f"{name}.bias", columns)
        self._matmul(name, (1, rows, inner, columns), rows * inner * self.element, size)

    def product(self, name: str, products: int, rows: int, inner: int, columns: int) -> None:
        """``products`` products of activations with activations: [rows, inner] times [inner, columns]."""
        read = products * (rows * inner + inner * columns) * self.element
        self._matmul(name, (products, rows, inner, columns), read, 0)

    def _matmul(self, name: str, shape: tuple[int, int, int, int], read: int, weights: int, kind: str = "matmul") -> None:
        products, rows, _, columns = shape
        written = products * rows * columns * self.element
        self._add(kind, name, 2 * math.prod(shape), read + weights, written, weights, shape)

    def conv(
        self,
        name: str,
        batch: int,
        channels: tuple[int, int],
        kernel: Sequence[int],
        size_in: Sequence[int],
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> tuple[int, ...]:
        """A convolution over ``size_in``; returns the size of what comes out."""
        size = tuple((n + 2 * padding - k) // stride + 1 for n, k in zip(size_in, kernel, strict=True))
        inner = channels[0] // groups * math.prod(kernel)
        weights = self.parameter(f"{name}.weight", inner * channels[1])
        if bias:
            weights += self.parameter(f"{name}.bias", channels[1])
        read = batch * channels[0] * math.prod(size_in) * self.element
        shape = (groups, batch * math.prod(size), inner, channels[1] // groups)
        self._matmul(name, shape, read, weights, "conv")
        return size

    def norm(self, name: str, rows: int, width: int, bias: bool = True, affine: bool = True) -> None:
        """``rows`` normalised vectors of ``width`` numbers, with a learned scale and, with ``bias``, a shift."""
        weights = self.parameter(name, width * (1 + bias)) if affine else 0
        self._map("norm", name, rows * width, 1, weights)

    def softmax(self, name: str, elements: int) -> None:
        self._map("softmax", name, elements)

    def activation(self, name: str, elements: int) -> None:
        self._map("activation", name, elements)

    def elementwise(self, name: str, elements: int, inputs: int = 2) -> None:
        """``inputs`` is the number of operands of full size."""
        self._map("elementwise", name, elements, inputs)

    def copy(self, name: str, elements: int) -> None:
        self._map("copy", name, elements)

    def reduce(self, name: str, elements: int, results: int) -> None:
        self._add("reduce", name, elements, elements * self.element, results * self.element, 0, None)

    def embedding(self, name: str, rows: int, width: int, entries: int) -> None:
        """``rows`` rows of ``width`` numbers out of a table of ``entries``, of which only those rows are read."""
        self.parameter(name, entries * width)
        self.gather(name, rows, width)

    def gather(self, name: str, rows: int, width: int) -> None:
        self._map("gather", name, rows * width)

    def _map(self, kind: str, name: str, elements: int, inputs: int = 1, weights: int = 0) -> None:
        size = elements * self.element
        self._add(kind, name, FLOPS_OF[kind] * elements, inputs * size + weights, size, weights, None)

    def _add(
        self,
        kind: str,
        name: str,
        flops: int,
        read: int,
        written: int,
        weights: int,
        shape: tuple[int, int, int, int] | None,
    ) -> None:
        where = ".".join((*self._scope, name))
        self._operators.append(Operator(kind, where, flops, read, written, weights, self._times, shape, self._fused))
