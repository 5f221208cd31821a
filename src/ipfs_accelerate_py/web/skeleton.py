"""A graph without its weights: what the page runs to compile shaders while the weights are still on their way.

Shaders depend on operators and shapes, not on values. Every large initializer becomes a stretch of one file of zeros that the page makes
itself, so a skeleton of a gigabyte's model has a few hundred kilobytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..models.prepared import Graph

ZEROS = "zeros"
SMALLEST_BYTES = 4096  # smaller initializers stay: shapes, scales, axes


@dataclass(frozen=True)
class Skeleton:
    """``graph`` describes the file beside the original; ``zero_bytes`` is the size of its largest left-out initializer."""

    graph: Graph
    zero_bytes: int


def skeleton(folder: Path, graph: Graph) -> Skeleton:
    """Write the skeleton of ``graph`` into its ``folder``, as NAME.skeleton.onnx; needs the onnx package."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor

    from ..models.export import sha256

    model = onnx.load(folder / graph.files[0], load_external_data=False)
    most = 0
    for tensor in model.graph.initializer:
        size = _bytes(tensor)
        if size < SMALLEST_BYTES:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
            continue
        most = max(most, size)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)  # type: ignore[arg-type]
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": ZEROS, "offset": "0", "length": str(size)}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    path = folder / f"{Path(graph.files[0]).stem}.skeleton.onnx"
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(model.SerializeToString())
    temporary.replace(path)
    return Skeleton(Graph((path.name,), (sha256(path),), path.stat().st_size, graph.inputs, graph.outputs), most)


def _bytes(tensor: object) -> int:
    """Bytes of the initializer's values; types of less than a byte are packed."""
    import onnx

    assert isinstance(tensor, onnx.TensorProto)
    count = 1
    for size in tensor.dims:
        count *= size
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    if name.endswith("INT4"):
        return (count + 1) // 2
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
