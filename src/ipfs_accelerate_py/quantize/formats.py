"""Weights of 2, 3, 4 and 8 bits: the layout of the planes, exact bytes, and the reference decoder in NumPy.

A weight matrix ``[rows, columns]`` has output features as rows (as torch's ``Linear.weight`` and an embedding table). Each row
is cut into groups of ``group_size`` (32 or 64) columns; the last one is padded. With ``groups = ceil(columns / group_size)``::

    w[row, column] = scale[row, group] * (q[row, column] - zero[row, group]),  group = column // group_size,  0 <= q < 2**bits
    scale[row, group] = row_scale[row] * scale_code[row, group] / 255          scale_code: 8 bits
    zero[row, group]  = zero_code[row, group] * (2**bits - 1) / 15             zero_code: 4 bits

So a group costs 12 bits beside its codes, and a row 16 (``row_scale`` is float16 when stored; a GPU buffer may hold it as
float32). The zero is a whole number at 4 bits (zero_code) and at 8 bits (17 * zero_code); at 2 and 3 bits it has fractions.

Every plane is little-endian uint32, row-major, and each row starts on a word of its own, so that rows can be split over buffers:

=============  ==========================  ===========================================================================
plane          words a row                 contents
=============  ==========================  ===========================================================================
codes          groups * group_size / n     n codes a word; code i of the word at bits [i*width, (i+1)*width).
                                           8 bits: n = 4, width 8. 4 bits: n = 8, width 4. 2 bits: n = 16, width 2.
                                           3 bits: n = 16, width 2: the two low bits of the code.
codes_high     groups * group_size / 32    3 bits only: the code's third bit, 32 a word, code i at bit i; the column's
                                           word is column // 32, and q = low + 4 * high.
scale_codes    ceil(groups / 4)            4 a word, group i at bits 8*(i % 4) of word i // 4
zero_codes     ceil(groups / 8)            8 a word, group i at bits 4*(i % 8) of word i // 8
row_scales     (float16, one a row)
=============  ==========================  ===========================================================================

Codes of padded columns, and codes of padded groups in the last word of a plane, are 0. A padded column does not decode to
zero: whoever multiplies must take its input as zero, or leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import UserError

BITS = (2, 3, 4, 8)
GROUP_SIZES = (32, 64)
SCALE_LEVELS = 255
ZERO_LEVELS = 15
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Format:
    """Bits of a weight and columns of a group. Raises UserError for ones that the layout does not have."""

    bits: int
    group_size: int = 64

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UserError(f"Weights can have {_listed(BITS)} bits, not {self.bits}.")
        if self.group_size not in GROUP_SIZES:
            raise UserError(f"Groups can have {_listed(GROUP_SIZES)} weights, not {self.group_size}.")

    @property
    def largest_code(self) -> int:
        return 2**self.bits - 1

    def groups(self, columns: int) -> int:
        """Groups of a row."""
        return -(-columns // self.group_size)

    def padded_columns(self, columns: int) -> int:
        return self.groups(columns) * self.group_size

    def plane_words(self, columns: int) -> dict[str, int]:
        """Words of uint32 a row, by plane (without ``row_scales``, which are float16)."""
        padded, groups = self.padded_columns(columns), self.groups(columns)
        words = {"codes": padded * min(self.bits, 2 if self.bits == 3 else 8) // 32}
        if self.bits == 3:
            words["codes_high"] = padded // 32
        return words | {"scale_codes": -(-groups // 4), "zero_codes": -(-groups // 8)}

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Exact bytes of a matrix: all planes and the float16 row scales."""
        return rows * (4 * sum(self.plane_words(columns).values()) + FLOAT16_BYTES)

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Stored bits for each weight of the matrix, scales, zeros and padding included."""
        return 8 * self.stored_bytes(rows, columns) / (rows * columns)

    def arithmetic(self, columns: int) -> str:
        """How a row of ``columns`` is cut, for messages: '100 columns = 2 groups of 64, 28 of them padding'."""
        padding = self.padded_columns(columns) - columns
        return f"{columns} columns = {self.groups(columns)} groups of {self.group_size}" + (
            f", {padding} of them padding" if padding else ""
        )


@dataclass(frozen=True)
class QuantizedMatrix:
    """A packed matrix ``[rows, columns]``; planes as in this module's docstring, uint32 [rows, words]; row_scales float16 [rows]."""

    format: Format
    columns: int
    codes: np.ndarray
    scale_codes: np.ndarray
    zero_codes: np.ndarray
    row_scales: np.ndarray
    codes_high: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.row_scales)

    @property
    def nbytes(self) -> int:
        """Bytes of the planes as they are; equals ``format.stored_bytes``."""
        return sum(plane.nbytes for plane in self.planes().values())

    def planes(self) -> dict[str, np.ndarray]:
        """The arrays by plane name, in the order in which they are stored."""
        high = {} if self.codes_high is None else {"codes_high": self.codes_high}
        return {
            "codes": self.codes,
            **high,
            "scale_codes": self.scale_codes,
            "zero_codes": self.zero_codes,
            "row_scales": self.row_scales,
        }

    @cached_property
    def scales(self) -> np.ndarray:
        """float32 [rows, groups]"""
        codes = unpack_words(self.scale_codes, 8)[:, : self.format.groups(self.columns)]
        return scales_of(self.row_scales, codes)

    @cached_property
    def zeros(self) -> np.ndarray:
        """float32 [rows, groups], in units of the code"""
        codes = unpack_words(self.zero_codes, 4)[:, : self.format.groups(self.columns)]
        return zeros_of(codes, self.format)

    def unpack(self) -> np.ndarray:
        """The codes q, uint8 [rows, columns]."""
        width = 2 if self.format.bits == 3 else self.format.bits
        codes = unpack_words(self.codes, width)
        if self.codes_high is not None:
            codes = codes | unpack_words(self.codes_high, 1) << 2
        return codes[:, : self.columns]

    def dequantize(self) -> np.ndarray:
        """The weights, float32 [rows, columns]: the reference that every kernel is compared with."""
        group = np.arange(self.columns) // self.format.group_size
        return self.scales[:, group] * (self.unpack().astype(np.float32) - self.zeros[:, group])


def scales_of(row_scales: np.ndarray, scale_codes: np.ndarray) -> np.ndarray:
    """float32 [rows, groups] from row scales [rows] and codes 0..255 [rows, groups]."""
    return row_scales.astype(np.float32)[:, None] * (scale_codes.astype(np.float32) / np.float32(SCALE_LEVELS))


def zeros_of(zero_codes: np.ndarray, form: Format) -> np.ndarray:
    """float32 [rows, groups] from codes 0..15."""
    return zero_codes.astype(np.float32) * np.float32(form.largest_code / ZERO_LEVELS)


def pack(
    codes: np.ndarray, scale_codes: np.ndarray, zero_codes: np.ndarray, row_scales: np.ndarray, form: Format
) -> QuantizedMatrix:
    """Pack codes uint8 [rows, columns], scale codes uint8 (0..255) and zero codes uint8 (0..15) [rows, groups] and finite row scales
    [rows], which are rounded to float16.

    Raises ValueError where shapes or ranges do not fit: that is a defect of a solver, not of a person's input.
    """
    rows, columns = codes.shape
    groups = (rows, form.groups(columns))
    if scale_codes.shape != groups or zero_codes.shape != groups or row_scales.shape != (rows,):
        raise ValueError(f"{codes.shape} codes need {groups} scale and zero codes and {rows} row scales")
    for name, values, largest in (
        ("code", codes, form.largest_code),
        ("scale code", scale_codes, SCALE_LEVELS),
        ("zero code", zero_codes, ZERO_LEVELS),
    ):
        if values.size and (values.min() < 0 or values.max() > largest):
            raise ValueError(f"a {name} outside 0..{largest}")
    if row_scales.size and not np.abs(row_scales).max() <= np.finfo(np.float16).max:
        raise ValueError("a row scale that float16 cannot hold")
    stored = row_scales.astype(np.float16)
    padded: np.ndarray = np.zeros((rows, form.padded_columns(columns)), np.uint8)
    padded[:, :columns] = codes
    high = None
    if form.bits == 3:
        high, padded = pack_words(padded >> 2, 1), padded & 3
    width = 2 if form.bits == 3 else form.bits
    return QuantizedMatrix(
        form, columns, pack_words(padded, width), pack_words(scale_codes, 8), pack_words(zero_codes, 4), stored, high
    )


def pack_words(values: np.ndarray, width: int) -> np.ndarray:
    """Little-endian uint32 [rows, ceil(n * width / 32)] from values below 2**width [rows, n]; value i at bits i*width of its word.

    ``width`` divides 32; the last word is filled up with zeros.
    """
    rows, count = values.shape
    a_word = 32 // width
    padded = np.zeros((rows, -(-count // a_word), a_word), np.uint32)
    padded.reshape(rows, -1)[:, :count] = values
    shifts = np.arange(a_word, dtype=np.uint32) * np.uint32(width)
    return np.bitwise_or.reduce(padded << shifts, axis=-1).astype("<u4")


def unpack_words(words: np.ndarray, width: int) -> np.ndarray:
    """uint8 [rows, words * 32 / width]: the inverse of ``pack_words``, with its padding."""
    shifts = np.arange(32 // width, dtype=np.uint32) * np.uint32(width)
    values = (words[..., None] >> shifts) & np.uint32(2**width - 1)
    return values.astype(np.uint8).reshape(len(words), -1)


def _listed(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
