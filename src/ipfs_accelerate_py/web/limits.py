"""Whether a model fits the adapter that is really there, with the arithmetic where it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LaunchError
from ..models.prepared import Graph

MB = 1e6


class TooLargeError(LaunchError):
    """Known before anything is sent: no memory ran out, but it would have."""

    def __init__(self, message: str) -> None:
        super().__init__("out_of_memory", message)


def check_adapter(folder: Path, graphs: Mapping[str, Graph], limits: Mapping[str, float] | None) -> None:
    """Raises TooLargeError where one weight is larger than a storage buffer of the adapter may be: ONNX Runtime splits none."""
    if not limits:
        return
    most = min(limits["maxStorageBufferBindingSize"], limits["maxBufferSize"])
    for graph in graphs.values():
        if graph.bytes <= most:  # so each of its weights is
            continue
        name, shape, size = largest_weight(folder / graph.files[0])
        if size > most:
            product = " x ".join(f"{length:,}" for length in shape)
            raise TooLargeError(
                f"The weight '{name}' is {product} = {math.prod(shape):,} values in {size / MB:,.1f} MB, and this adapter binds at most "
                f"{most / MB:,.1f} MB at once."
            )


def check_threshold(graphs: Mapping[str, Graph], threshold_mb: float | None, precision: str) -> None:
    """Raises TooLargeError where the weights alone are above ``memory_threshold_mb``."""
    check_size({name: graph.bytes for name, graph in graphs.items()}, threshold_mb, precision)


def check_size(component_bytes: Mapping[str, int], threshold_mb: float | None, precision: str) -> None:
    """``check_threshold`` by the bytes of each component."""
    size = sum(component_bytes.values()) / MB
    if threshold_mb is not None and size > threshold_mb:
        parts = " + ".join(f"{name} {each / MB:,.1f} MB" for name, each in component_bytes.items())
        raise TooLargeError(
            f"At {precision} the weights are {parts} = {size:,.1f} MB, above memory_threshold_mb = {threshold_mb:,g}."
        )


def largest_weight(path: Path) -> tuple[str, tuple[int, ...], int]:
    """Name, shape and bytes of the largest initializer of an ONNX file; its external data is not read."""
    import onnx

    def size(tensor: Any) -> int:
        bits = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
        if tensor.data_type in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
            bits = 4
        return math.ceil(math.prod(tensor.dims) * bits / 8)

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    found = max(tensors, key=size)
    return found.name, tuple(found.dims), size(found)
