"""The planes against bit arithmetic on Python integers, and exact bytes against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.quantize.formats import BITS, GROUP_SIZES, Format, QuantizedMatrix, pack, pack_words, unpack_words

shapes = st.tuples(st.integers(1, 5), st.integers(1, 200))


def random_matrix(form: Format, rows: int, columns: int, seed: int) -> tuple[QuantizedMatrix, dict[str, np.ndarray]]:
    """A packed matrix, and what was packed."""
    draw = np.random.default_rng(seed)
    groups = form.groups(columns)
    parts = {
        "codes": draw.integers(0, 2**form.bits, (rows, columns), dtype=np.uint8),
        "scale_codes": draw.integers(0, 256, (rows, groups), dtype=np.uint8),
        "zero_codes": draw.integers(0, 16, (rows, groups), dtype=np.uint8),
        "row_scales": draw.uniform(1e-4, 2, rows).astype(np.float16),
    }
    return pack(**parts, form=form), parts


def bits_of(words: np.ndarray, first: int, width: int) -> int:
    """``width`` bits of a row from bit ``first`` on, the row read as one little-endian number."""
    return int.from_bytes(words.astype("<u4").tobytes(), "little") >> first & (2**width - 1)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(BITS), st.sampled_from(GROUP_SIZES), shapes, st.integers(0, 1000))
def test_codes_come_back(bits: int, group_size: int, shape: tuple[int, int], seed: int) -> None:
    """Every code of every width, group and odd shape unpacks to itself."""
    matrix, parts = random_matrix(Format(bits, group_size), *shape, seed)
    assert np.array_equal(matrix.unpack(), parts["codes"])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(BITS), st.sampled_from(GROUP_SIZES), shapes, st.integers(0, 1000))
def test_weights_are_what_the_docstring_says(bits: int, group_size: int, shape: tuple[int, int], seed: int) -> None:
    """One weight at a random place, decoded with integers from the raw planes, equals the reference decoder's."""
    form = Format(bits, group_size)
    matrix, _ = random_matrix(form, *shape, seed)
    row, column = (int(np.random.default_rng(seed).integers(size)) for size in shape)
    group = column // group_size
    if bits == 3:
        code = bits_of(matrix.codes[row], 2 * column, 2) + 4 * bits_of(matrix.codes_high[row], column, 1)
    else:
        code = bits_of(matrix.codes[row], bits * column, bits)
    scale = float(matrix.row_scales[row]) * bits_of(matrix.scale_codes[row], 8 * group, 8) / 255
    zero = bits_of(matrix.zero_codes[row], 4 * group, 4) * (2**bits - 1) / 15
    assert matrix.dequantize()[row, column] == pytest.approx(scale * (code - zero), rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(BITS), st.sampled_from(GROUP_SIZES), shapes)
def test_bytes_are_exact(bits: int, group_size: int, shape: tuple[int, int]) -> None:
    """The bytes that are stated are those of the arrays, for any shape."""
    form = Format(bits, group_size)
    matrix, _ = random_matrix(form, *shape, 0)
    assert matrix.nbytes == form.stored_bytes(*shape)
    assert form.bits_per_weight(*shape) == 8 * matrix.nbytes / (shape[0] * shape[1])


@pytest.mark.parametrize(
    ("bits", "group_size", "expected"),
    [
        (2, 64, 1024 + 64 + 32 + 2),  # a row of 4096: 4096 * 2 / 8 of codes, 64 scale bytes, 64 zero halves, a float16
        (3, 64, 1024 + 512 + 64 + 32 + 2),
        (4, 64, 2048 + 64 + 32 + 2),
        (4, 32, 2048 + 128 + 64 + 2),
        (8, 64, 4096 + 64 + 32 + 2),
    ],
)
def test_bytes_of_a_row_by_hand(bits: int, group_size: int, expected: int) -> None:
    """A row of 4096 weights, counted by hand."""
    assert Format(bits, group_size).stored_bytes(1, 4096) == expected


@pytest.mark.parametrize(("bits", "least_percent"), [(2, 86.0), (3, 79.0), (4, 72.0)])
def test_the_formats_save_what_they_are_for(bits: int, least_percent: float) -> None:
    """At the width of a 7B model: 86, 79 and 72 % less than float16, scales and zeros included."""
    assert 100 * (1 - Format(bits, 64).bits_per_weight(4096, 4096) / 16) >= least_percent


def test_an_odd_row_is_padded_to_whole_groups() -> None:
    """100 columns take two groups of 64; the padding's codes are 0, and the arithmetic is said."""
    form = Format(2, 64)
    matrix, _ = random_matrix(form, 3, 100, 1)
    assert matrix.codes.shape == (3, 8)
    assert not unpack_words(matrix.codes, 2)[:, 100:].any()
    assert form.arithmetic(100) == "100 columns = 2 groups of 64, 28 of them padding"


@given(st.sampled_from((1, 2, 4, 8)), st.integers(0, 70), st.integers(0, 1000))
def test_words_hold_values_from_the_low_bits_on(width: int, count: int, seed: int) -> None:
    """Packing is the sum of value << (i * width), and unpacking its inverse."""
    values = np.random.default_rng(seed).integers(0, 2**width, (2, count), dtype=np.uint8)
    words = pack_words(values, width)
    for row in range(2):
        number = sum(int(value) << width * index for index, value in enumerate(values[row]))
        assert int.from_bytes(words[row].tobytes(), "little") == number
    assert np.array_equal(unpack_words(words, width)[:, :count], values)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((5, 64), "Weights can have 2, 3, 4 or 8 bits, not 5."), ((4, 48), "Groups can have 32 or 64 weights, not 48.")],
)
def test_other_widths_are_refused(arguments: tuple[int, int], sentence: str) -> None:
    """A width or group that the layout does not have."""
    with pytest.raises(UserError) as raised:
        Format(*arguments)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "broken",
    [{"codes": np.full((1, 64), 4, np.uint8)}, {"zero_codes": np.full((1, 1), 16, np.uint8)}, {"row_scales": np.array([1e6])}],
)
def test_a_solver_that_gives_impossible_codes_is_found_out(broken: dict[str, np.ndarray]) -> None:
    """Codes beyond their bits and scales beyond float16 are defects, not silently cut."""
    whole = {
        "codes": np.zeros((1, 64), np.uint8),
        "scale_codes": np.zeros((1, 1), np.uint8),
        "zero_codes": np.zeros((1, 1), np.uint8),
        "row_scales": np.ones(1),
    }
    with pytest.raises(ValueError, match=r"outside|float16"):
        pack(**{**whole, **broken}, form=Format(2, 64))
