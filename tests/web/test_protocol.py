"""Frames between Python and the page, and the TypeScript types that are generated from the Python ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from ipfs_accelerate_py.web import protocol

GENERATED = Path(__file__).parents[2] / "browser" / "src" / "protocol.ts"


def test_typescript_is_what_python_generates():
    """A message changed in Python only, or in TypeScript only, is drift."""
    assert protocol.typescript() == GENERATED.read_text(), (
        "Run: python -m ipfs_accelerate_py.web.protocol > browser/src/protocol.ts"
    )


@pytest.mark.parametrize("dtype", protocol.DTYPES)
def test_tensors_survive_a_frame(dtype):
    """Every type and shape, empty and scalar ones too, comes out as it went in, at offsets that typed arrays accept."""
    arrays = {"scalar": np.ones((), dtype), "odd": np.arange(15).reshape(3, 5).astype(dtype), "empty": np.zeros((0, 2), dtype)}
    frame = protocol.encode(protocol.Sampled(id=7, samples=(protocol.SampleTimes(5, (1, 2)),), bytes_read_back=3), arrays)
    assert isinstance(frame, bytearray)
    length = struct.unpack_from("<I", frame)[0]
    offsets = [header["offset"] for header in json.loads(frame[4 : 4 + length])["tensors"]]
    assert all((4 + length + offset) % 8 == 0 for offset in offsets)
    decoded = protocol.decode(frame)
    assert decoded.message == protocol.Sampled(id=7, samples=(protocol.SampleTimes(5, (1, 2)),), bytes_read_back=3)
    for name, array in arrays.items():
        assert decoded.tensors[name].dtype == array.dtype
        assert decoded.tensors[name].tolist() == array.tolist()


def test_strided_arrays_are_sent_row_by_row():
    """A transposed array arrives with its values where its shape says."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    decoded = protocol.decode(protocol.encode(protocol.Done(id=1), {"x": array}))
    assert decoded.tensors["x"].tolist() == array.tolist()


def test_a_type_that_the_page_lacks_is_refused():
    """float64 has no place in a browser's engine."""
    with pytest.raises(TypeError, match="'x' is float64"):
        protocol.encode(protocol.Done(), {"x": np.zeros(1)})


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "Shutdown", "id": 1}',
        '{"type": "Failure", "id": 1, "error_class": "sunspots", "message": ""}',
        "[]",
        "{",
        "{}",
        b"ab",
    ],
)
def test_a_message_that_is_not_known_is_refused(frame):
    """What the page sends is checked before anybody acts on it."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        protocol.decode(frame)
