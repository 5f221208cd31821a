"""llama.cpp's own quantisers and decoders, called in the library that PyPI's xllamacpp carries: nothing of it is copied or rebuilt here.

    pip install 'ipfs_accelerate_py[llama-cpp]'

``ggml_quantize_chunk`` and the ``dequantize_row_*`` functions of https://github.com/ggml-org/ggml, by ctypes.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

from ipfs_accelerate_py.errors import UserError

PACKAGE = "xllamacpp"
# enum ggml_type of ggml.h, and the name that its decoder has in ggml-quants.h.
TYPES = {
    "Q4_0": (2, "q4_0"),
    "Q5_0": (6, "q5_0"),
    "Q8_0": (8, "q8_0"),
    "Q2_K": (10, "q2_K"),
    "Q3_K": (11, "q3_K"),
    "Q4_K": (12, "q4_K"),
    "Q5_K": (13, "q5_K"),
    "Q6_K": (14, "q6_K"),
    "IQ3_XXS": (18, "iq3_xxs"),
    "IQ3_S": (21, "iq3_s"),
    "IQ2_S": (22, "iq2_s"),
}


def missing() -> str | None:
    """Why the library cannot be called here; None where it can."""
    if importlib.util.find_spec(PACKAGE) is None:
        return f"the package {PACKAGE} is not installed (pip install 'ipfs_accelerate_py[llama-cpp]')"
    return None


@cache
def library() -> ctypes.CDLL:
    """The shared library; UserError where the package is missing or carries none."""
    if (why := missing()) is not None:
        raise UserError(f"llama.cpp's formats are unavailable: {why}.")
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in folder.glob(f"{PACKAGE}*.so")]
    if not files:
        raise UserError(f"The package {PACKAGE} carries no shared library here: its wheels for Linux do.")
    # Its Python module must be loaded first: it loads what the library depends on.
    importlib.import_module(PACKAGE)
    loaded = ctypes.CDLL(str(files[0]))
    loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
    loaded.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    loaded.ggml_row_size.restype = ctypes.c_size_t
    loaded.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    loaded.ggml_blck_size.restype = ctypes.c_int64
    loaded.ggml_blck_size.argtypes = [ctypes.c_int]
    return loaded


def row_bytes(kind: str, columns: int) -> int:
    """Exact bytes of a row. UserError where the columns are not whole blocks."""
    block = library().ggml_blck_size(TYPES[kind][0])
    if columns % block:
        raise UserError(f"llama.cpp's {kind} has blocks of {block}, and {columns} columns are not whole blocks.")
    return int(library().ggml_row_size(TYPES[kind][0], columns))


def quantize(values: np.ndarray, kind: str, importance: np.ndarray | None = None) -> np.ndarray:
    """uint8 [rows, row_bytes] from float32 [rows, columns]; ``importance`` float32 [columns] is a row of an importance matrix: the mean
    square of each column's inputs."""
    rows, columns = values.shape
    size = row_bytes(kind, columns)
    values = np.ascontiguousarray(values, np.float32)
    packed = np.zeros((rows, size), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    if weights is not None and weights.shape != (columns,):
        raise ValueError(f"{weights.shape} importances for {columns} columns")
    written = library().ggml_quantize_chunk(
        TYPES[kind][0],
        values.ctypes.data,
        packed.ctypes.data,
        0,
        rows,
        columns,
        None if weights is None else weights.ctypes.data,
    )
    if written != packed.nbytes:
        raise ValueError(f"ggml wrote {written} bytes of {packed.nbytes}")
    return packed


def dequantize(packed: np.ndarray, kind: str, columns: int) -> np.ndarray:
    """float32 [rows, columns] by ggml's own decoder."""
    decode = getattr(library(), f"dequantize_row_{TYPES[kind][1]}")
    decode.restype, decode.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    packed = np.ascontiguousarray(packed)
    values = np.empty((len(packed), columns), np.float32)
    decode(packed.ctypes.data, values.ctypes.data, values.size)
    return values
