"""Every kernel of the WGSL engine against NumPy, at sizes that are multiples of nothing, in each browser's compiler."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from engine_pages import WORKGROUP, buffers, layout, random_matrix, reduction, rotate, run_kernel, worst

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.quantize import kv
from ipfs_accelerate_py.web.page_session import Page

Pages = Callable[[str], Page]
# Chromium's adapter has subgroups, so it runs both variants; Firefox has none.
VARIANTS = [("chromium", True), ("chromium", False), ("firefox", False)]
BROWSERS = ["chromium", "firefox"]


def float_matrix(dtype: str, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as stored (bfloat16 as uint16) and its values."""
    values = np.random.default_rng(3).standard_normal((rows, columns)).astype(np.float32)
    if dtype == "bfloat16":
        stored = (values.view(np.uint32) >> 16).astype(np.uint16)
        return stored, (stored.astype(np.uint32) << 16).view(np.float32)
    stored = values.astype(dtype)
    return stored, stored.astype(np.float32)


def matvec(
    page: Page,
    matrix,
    form: dict,
    x: np.ndarray,
    subgroups: bool,
    *,
    use: dict | None = None,
    more: dict | None = None,
    rows: int,
    workgroups: int | None = None,
) -> dict[str, np.ndarray]:
    """``rows`` results of the matrix-vector kernel; ``use`` switches what is fused to it, ``more`` are further tensors."""
    streams = 2 if use and use.get("SWIGLU") else 1
    per_team = 2
    tensors = {**buffers(matrix, first_row=0), "0.2": x, "0.4": np.zeros(rows, np.float32), **(more or {})}
    constants = {**form, **reduction(subgroups, per_team * streams), "LANES": 32, "ROWS": per_team, "STREAMS": streams}
    # A tile of one block makes several rounds of every matrix.
    constants |= {
        "TILE": min(int(form["PADDED"]), 2 * int(form["BLOCK"])),
        "EPSILON": 1e-5,
        "GREATEST_AT": 0,
        "MATRIX_ROWS": rows * streams,
    }
    constants |= use or {}
    outputs = {"0.4": np.float32} | ({"0.5": np.uint32} if "0.5" in tensors else {})
    groups = workgroups or -(-rows // (per_team * WORKGROUP // 32))
    return run_kernel(page, "matvec", constants, tensors, outputs, (groups,), subgroups)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("key", "subgroups"), VARIANTS)
def test_a_vector_that_is_brought_in_once(page_of: Pages, key: str, subgroups: bool, bits: int):
    """Workgroups that go through several tiles of rows, with the norm made from registers or read twice; teams that are a subgroup."""
    rng, columns, rows = np.random.default_rng(1), 204, 83
    x, norm = (rng.standard_normal(columns).astype(np.float32) for _ in range(2))
    matrix, form = random_matrix(0, rows, columns, bits, 32), layout(bits, columns, 32)
    normed = x / np.sqrt((x * x).mean() + 1e-5) * norm
    whole = {"WHOLE": 1, "TILE": form["PADDED"], "NORM": 1, "QUADS_OF_X": 1}
    lanes = [{}, {"LANES": 4, "ONE_SUBGROUP": 1}] if subgroups else [{}]  # SwiftShader's subgroups have 4 invocations
    for own in (0, -(-int(form["PADDED"]) // 4 // WORKGROUP) or 1):
        for more in lanes:
            use = {**whole, "OWN": own, **more}
            found = matvec(page_of(key), matrix, form, x, subgroups, use=use, rows=rows, more={"0.3": norm}, workgroups=3)[
                "0.4"
            ]
            assert worst(found, matrix.dequantize() @ normed) < 1e-5


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("key", "subgroups"), VARIANTS)
def test_a_quantised_matrix_times_a_vector(page_of: Pages, key: str, subgroups: bool, bits: int):
    """The product is that of the dequantised matrix, to the precision of float32, with groups of 32 and 64."""
    x = np.random.default_rng(1).standard_normal(211).astype(np.float32)
    for group_size in (32, 64) if key == "firefox" else (64 if bits == 4 else 32,):
        matrix = random_matrix(0, 37, 211, bits, group_size)
        found = matvec(page_of(key), matrix, layout(bits, 211, group_size), x, subgroups, rows=37)["0.4"]
        assert worst(found, matrix.dequantize() @ x) < 1e-5


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("key", BROWSERS)
def test_int8_activations(page_of: Pages, key: str, bits: int):
    """The product is exactly that of the activations rounded to 127 steps in each block: nothing else is lost."""
    x = np.random.default_rng(1).standard_normal(211).astype(np.float32)
    matrix = random_matrix(0, 37, 211, bits, 32)
    form = layout(bits, 211, 32)
    found = matvec(page_of(key), matrix, form, x, False, use={"INT8": 1}, rows=37)["0.4"]
    block = int(form["SUB_BLOCK"])
    padded = np.pad(x, (0, -len(x) % block)).reshape(-1, block)
    step = np.abs(padded).max(1, keepdims=True) / 127
    rounded = (np.round(padded / step) * step).reshape(-1)[: len(x)]
    exact = matrix.dequantize() @ x
    assert worst(found, matrix.dequantize() @ rounded) < 2e-3  # a few roundings fall on the other side
    assert worst(found, exact) < 2e-2


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("key", "subgroups"), VARIANTS)
def test_a_gate_leaves_int8_for_the_next_product(page_of: Pages, key: str, subgroups: bool, bits: int):
    """silu(gate) * up of 83 rows as int8 in blocks of 32: steps, sums and rounded values of NumPy, and a second matrix takes them: its
    product is that with the rounded values."""
    rng, columns, rows = np.random.default_rng(1), 75, 83
    x = rng.standard_normal(columns).astype(np.float32)
    stored, weights = float_matrix("float32", 2 * rows, columns)
    gate, up = weights[:rows] @ x, weights[rows:] @ x
    expected = np.pad(gate / (1 + np.exp(-gate)) * up, (0, 128 - rows)).reshape(4, 32)
    form = layout(32, columns, 1)
    use = {"SWIGLU": 1, "PACKED_OUT": 1, "PACKED_ORDER": bits, "WHOLE": 1, "TILE": form["PADDED"]}
    packed = matvec(
        page_of(key),
        stored,
        form,
        x,
        subgroups,
        use=use,
        rows=rows,
        workgroups=3,
        more={"0.4": np.zeros((4, 12), np.uint32)},
    )["0.4"].view(np.uint32)
    blocks = packed.reshape(4, 12)
    step, total = (np.ascontiguousarray(blocks[:, [word]]).view(np.float32) for word in (8, 9))
    apart = {2: [0, 4, 8, 12], 4: [0, 2, 4, 6]}[bits]
    firsts = {2: [i // 4 * 16 + i % 4 for i in range(8)], 4: [i // 2 * 8 + i % 2 for i in range(8)]}[bits]
    values = np.zeros((4, 32))
    for word, first in enumerate(firsts):
        for byte, more in enumerate(apart):
            values[:, first + more] = np.ascontiguousarray(blocks[:, word]).view(np.int8).reshape(4, 4)[:, byte]
    np.testing.assert_allclose(step[:, 0], np.abs(expected).max(1) / 127, rtol=1e-4)
    assert np.abs(values * step - expected).max() <= 0.51 * step.max()
    np.testing.assert_allclose(total[:, 0], (values * step).sum(1), rtol=1e-4, atol=1e-4)
    matrix = random_matrix(0, 37, rows, bits, 32)
    form = layout(bits, rows, 32)
    found = matvec(
        page_of(key),
        matrix,
        form,
        packed,
        subgroups,
        use={"INT8": 1, "PACKED_IN": 1, "WHOLE": 1, "TILE": form["PADDED"]},
        rows=37,
    )["0.4"]
    rounded = (values * step).reshape(-1)[:rows]
    assert worst(found, matrix.dequantize() @ rounded) < 1e-4
    assert worst(found, matrix.dequantize() @ expected.reshape(-1)[:rows]) < 2e-2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("key", BROWSERS)
def test_a_float_matrix_times_a_vector(page_of: Pages, key: str, dtype: str):
    """Weights in float32, float16 and bfloat16 need no feature of the adapter."""
    stored, values = float_matrix(dtype, 37, 211)
    x = np.random.default_rng(1).standard_normal(211).astype(np.float32)
    form = layout(32 if dtype == "float32" else 16, 211, 1, dtype == "bfloat16")
    assert worst(matvec(page_of(key), stored, form, x, False, rows=37)["0.4"], values @ x) < 1e-5


@pytest.mark.parametrize(("key", "subgroups"), VARIANTS)
def test_what_is_fused_to_a_product(page_of: Pages, key: str, subgroups: bool):
    """RMS norm before; bias, residual, SwiGLU, and the greatest logit after."""
    rng, page = np.random.default_rng(1), page_of(key)
    x, norm, old = (rng.standard_normal(n).astype(np.float32) for n in (75, 75, 38))
    stored, weights = float_matrix("float32", 38, 75)
    form = layout(32, 75, 1)
    normed = x / np.sqrt((x * x).mean() + 1e-5) * norm
    found = matvec(
        page,
        stored,
        form,
        x,
        subgroups,
        use={"NORM": 1, "GREATEST": 1},
        rows=38,
        more={"0.3": norm, "0.5": np.zeros(2 * 5, np.uint32)},
    )
    assert worst(found["0.4"], weights @ normed) < 1e-5
    candidates = found["0.5"].reshape(-1, 2)
    assert candidates[candidates[:, 0].argmax(), 1] == (weights @ normed).argmax()
    found = matvec(page, stored, form, x, subgroups, use={"RESIDUAL": 1}, rows=38, more={"0.4": old.copy()})
    assert worst(found["0.4"], old + weights @ x) < 1e-5
    gate, up = np.split(weights @ normed, 2)
    found = matvec(page, stored, form, x, subgroups, use={"NORM": 1, "SWIGLU": 1}, rows=19, more={"0.3": norm})
    assert worst(found["0.4"], gate / (1 + np.exp(-gate)) * up) < 1e-5


@pytest.mark.parametrize(
    ("key", "bits", "tokens"), [("firefox", bits, 1) for bits in (2, 3, 4, 8, 16, 32)] + [("chromium", 3, 1), ("firefox", 4, 4)]
)
def test_a_matrix_times_a_chunk(page_of: Pages, key: str, bits: int, tokens: int):
    """Tiles that stick out on every side, with a bias, added to what was there; one or four tokens an invocation."""
    rng = np.random.default_rng(2)
    x, bias, old = (rng.standard_normal(shape).astype(np.float32) for shape in ((19, 75), 70, (19, 70)))
    if bits <= 8:
        matrix = random_matrix(0, 70, 75, bits, 32)
        weights = matrix.dequantize()
    else:
        matrix, weights = float_matrix("float32" if bits == 32 else "float16", 70, 75)
    constants = {**layout(bits, 75, 32), "TOKENS": tokens, "ALL_ROWS": 70, "RESIDUAL": 1, "HAS_BIAS": 1}
    expected = (old + x @ weights.T + bias).reshape(-1)
    # Half precision needs shader-f16, which Firefox's software adapter has.
    for element, error in {"f32": 1e-5, **({"f16": 2e-3} if key == "firefox" and bits in (4, 32) else {})}.items():
        tensors = {**buffers(matrix, bias), "0.2": state(rows=19), "0.3": x, "0.4": old.copy()}
        groups = (2, -(-19 // (16 * tokens)))
        found = run_kernel(page_of(key), "matmul", constants | {"ELEMENT": element}, tensors, {"0.4": np.float32}, groups)[
            "0.4"
        ]
        assert worst(found, expected) < error


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("key", BROWSERS)
def test_a_matrix_times_an_int8_chunk(page_of: Pages, key: str, bits: int):
    """The product is that of the activations rounded to 127 steps in each block of 32, for tiles that stick out on every side."""
    rng, page = np.random.default_rng(2), page_of(key)
    tokens, rows, columns = 67, 70, 171
    x, bias, old = (rng.standard_normal(shape).astype(np.float32) for shape in ((tokens, columns), rows, (tokens, rows)))
    matrix = random_matrix(0, rows, columns, bits, 32)
    blocks = -(-columns // 64) * 2
    vectors = {
        "0.2": state(rows=tokens),
        "0.3": x,
        "0.4": np.zeros((tokens, blocks, 8), np.uint32),
        "0.5": np.zeros((tokens, blocks, 2), np.float32),
    }
    constants = {"COLUMNS": columns, "ORDER": max(bits, 3)}
    outputs = {"0.4": np.uint32, "0.5": np.float32}
    made = run_kernel(page, "quantize_chunk", constants, vectors, outputs, (-(-blocks // 4), 2))
    padded = np.pad(x, ((0, 0), (0, blocks * 32 - columns))).reshape(tokens, blocks, 32)
    step = np.abs(padded).max(2, keepdims=True) / 127
    rounded = np.round(padded / np.where(step > 0, step, 1)) * step
    np.testing.assert_allclose(made["0.5"].reshape(tokens, blocks, 2)[..., 1], rounded.sum(2), rtol=1e-3, atol=2e-2)
    tensors = {**buffers(matrix, bias), "0.2": state(rows=tokens), "0.3": made["0.4"], "0.4": old.copy(), "0.5": made["0.5"]}
    constants = {**layout(bits, columns, 32), "TOKENS": 4, "ALL_ROWS": rows, "RESIDUAL": 1, "HAS_BIAS": 1}
    found = run_kernel(page, "matmul_int8", constants, tensors, {"0.4": np.float32}, (2, 2))["0.4"]
    rounded = rounded.reshape(tokens, -1)[:, :columns]
    assert (
        worst(found, (old + rounded @ matrix.dequantize().T + bias).reshape(-1)) < 2e-3
    )  # a few roundings fall on the other side
    assert worst(found, (old + x @ matrix.dequantize().T + bias).reshape(-1)) < 2e-2


def state(position: int = 0, token: int = 0, folded: int = 0, rows: int = 1, count: int = 0) -> np.ndarray:
    return np.array([position, token, folded, rows, count, 0, 0, 0], np.uint32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("key", BROWSERS)
def test_an_embedding(page_of: Pages, key: str, bits: int):
    """Rows of a table by token; tokens of another part of a split table are left alone."""
    matrix = random_matrix(0, 20, 75, bits, 64)
    tokens = np.array([11, 7, 29, 40], np.uint32)  # the part has rows 10 to 29
    tensors = {**buffers(matrix, first_row=10), "0.3": tokens, "0.4": np.full(4 * 75, 7, np.float32)}
    constants = {**layout(bits, 75, 64), "DECODE": 0, "VOCABULARY": 50, "WORKGROUP": 64}
    found = run_kernel(page_of(key), "embed", constants, tensors, {"0.4": np.float32}, (4,))["0.4"].reshape(4, 75)
    table = matrix.dequantize()
    np.testing.assert_allclose(found[[0, 2]], table[[1, 19]], rtol=1e-5, atol=1e-5)
    assert (found[[1, 3]] == 7).all()


@pytest.mark.parametrize(("key", "subgroups"), VARIANTS)
def test_norm_and_gate_of_a_chunk(page_of: Pages, key: str, subgroups: bool):
    """RMS norm and silu(gate) * up of three tokens."""
    rng = np.random.default_rng(4)
    x, norm = rng.standard_normal((3, 211)).astype(np.float32), rng.standard_normal(211).astype(np.float32)
    constants = {**reduction(subgroups), "COLUMNS": 211, "EPSILON": 1e-6}
    tensors = {"0.0": x, "0.1": norm, "0.2": np.zeros_like(x)}
    found = run_kernel(page_of(key), "rms_norm", constants, tensors, {"0.2": np.float32}, (3,), subgroups)["0.2"]
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * norm
    assert worst(found, expected.reshape(-1)) < 1e-5
    if not subgroups:
        gated = rng.standard_normal((3, 2, 75)).astype(np.float32)
        tensors = {"0.0": gated, "0.1": np.zeros((3, 75), np.float32)}
        found = run_kernel(page_of(key), "swiglu", {"COLUMNS": 75, "WORKGROUP": 32}, tensors, {"0.1": np.float32}, (3, 3))[
            "0.1"
        ]
        assert worst(found, (gated[:, 0] / (1 + np.exp(-gated[:, 0])) * gated[:, 1]).reshape(-1)) < 1e-5


class Cache:
    """Keys and values of 70 tokens as the engine keeps them: ``folded`` tokens quantised, the rest float16 in a ring of 64."""

    heads, size, context, ring, folded, length = 2, 24, 96, 64, 32, 70

    def __init__(self, key_bits: int, value_bits: int, size: int = 24) -> None:
        rng = np.random.default_rng(5)
        self.size, self.bits = size, (key_bits, value_bits)
        self.floats = [rng.standard_normal((self.heads, self.length, size)).astype(np.float16).astype(np.float32) for _ in "kv"]
        self.seen = []
        for values, bits, fold in zip(self.floats, self.bits, (kv.folded_keys, kv.folded_values), strict=True):
            quantised = fold(values[:, : self.folded], bits) if bits < 16 else values[:, : self.folded]
            self.seen.append(np.concatenate([quantised, values[:, self.folded :]], axis=1))

    def ring_of(self, bits: int) -> int:
        return self.ring if bits < 16 else self.context

    def rings(self, upto: int) -> list[np.ndarray]:
        """Both rings after ``upto`` tokens, float16 (float32 at 32 bits), as uint32."""
        made = []
        for values, bits in zip(self.floats, self.bits, strict=True):
            ring = np.zeros((self.heads, self.ring_of(bits), self.size), np.float32 if bits == 32 else np.float16)
            for token in range(upto):
                ring[:, token % self.ring_of(bits)] = values[:, token]
            made.append(ring.reshape(-1).view(np.uint32))
        return made

    def tiles(self) -> dict[str, np.ndarray]:
        """Buffers of the folded tiles, by binding; one tile is filled."""
        found = {}
        for binding, values, bits, make in zip("23", self.floats, self.bits, (kv.key_tile, kv.value_tile), strict=True):
            if bits < 16:
                words = [make(values[head, : self.folded], bits).reshape(-1) for head in range(self.heads)]
                found[f"1.{binding}"] = np.concatenate(
                    [np.concatenate([tile, np.zeros(2 * tile.size, np.uint32)]) for tile in words]
                )
        return found

    def constants(self, access: str, folded_access: str = "read") -> dict[str, float | str]:
        return {
            "KEY_BITS": self.bits[0],
            "VALUE_BITS": self.bits[1],
            "KEY_RING": self.ring_of(self.bits[0]),
            "VALUE_RING": self.ring_of(self.bits[1]),
            "FOLDED_TILES": self.context // 32,
            "HEADS": 6,
            "KEY_VALUE_HEADS": self.heads,
            "GROUP": 3,
            "HEAD_SIZE": self.size,
            "PADDED_CHANNELS": int(self.size % 32 != 0),
            "WINDOW": 60,
            "SCORE_SCALE": self.size**-0.5,
            "WORKGROUP": WORKGROUP,
            "CACHE_ACCESS": access,
            "FOLDED_ACCESS": folded_access,
        }

    def attention(self, queries: np.ndarray, upto: int) -> np.ndarray:
        """[heads, channels] of one token's rotated queries [heads, channels], who sees the last 60 of ``upto`` tokens."""
        keys, values = (np.repeat(part[:, max(0, upto - 60) : upto], 3, axis=0) for part in self.seen)
        scores = np.einsum("hc,htc->ht", queries, keys) * self.size**-0.5
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("ht,htc->hc", powers / powers.sum(-1, keepdims=True), values)


WIDTHS = [(32, 32, 24), (16, 16, 24), (8, 8, 32), (4, 2, 24), (3, 3, 32), (2, 4, 64)]


@pytest.mark.parametrize(
    ("key", "widths"), [("firefox", widths) for widths in WIDTHS] + [("chromium", (4, 2, 24)), ("chromium", (3, 3, 32))]
)
def test_attention_of_one_token(page_of: Pages, key: str, widths: tuple[int, int, int]):
    """Rotation, append, a window, quantised and float tiles, in one split and in two that are merged."""
    page, (key_bits, value_bits, size) = page_of(key), widths
    cache = Cache(key_bits, value_bits, size)
    position = cache.length - 1
    rng = np.random.default_rng(6)
    angles = np.outer(np.arange(cache.context), 0.3 ** np.arange(size // 2))
    queries = rng.standard_normal((6, size)).astype(np.float32)
    # The token's key as it is before rotation: turned back.
    key = rotate(cache.floats[0][:, position][:, None], -angles[position][None])[:, 0]
    qkv = np.concatenate([queries.reshape(-1), key.reshape(-1), cache.floats[1][:, position].reshape(-1)]).astype(np.float32)
    rotary = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    rings = cache.rings(position)
    expected = cache.attention(rotate(queries[:, None], angles[position][None])[:, 0], cache.length)
    unrolled = -(-32 * size // 4 // WORKGROUP) if WORKGROUP % (size // 4) == 0 else 0
    for splits, loads in ((1, unrolled), (2, 0), (2, unrolled)):
        tensors = {
            "0.0": state(position, folded=cache.folded),
            "0.1": qkv,
            "0.2": rotary,
            "0.3": np.zeros((6, size), np.float32),
            "0.4": np.zeros((6, 2, size + 4), np.float32),
            "1.0": rings[0],
            "1.1": rings[1],
            **cache.tiles(),
        }
        outputs = {"0.3": np.float32, "0.4": np.float32}
        constants = {**cache.constants("read_write"), "TILE_LOADS": loads}
        found = run_kernel(page, "attention_decode", constants, tensors, outputs, (2, splits))
        attended = found["0.3"]
        if splits == 2:
            merge = {
                "0.0": found["0.4"],
                "0.1": np.zeros((6, size), np.float32),
                "0.2 uniform": np.array([2, 0, 0, 0], np.uint32),
            }
            stored, weights = float_matrix("float32", 37, 6 * size)
            use = {"MERGE": 1, "HEADS": 6, "HEAD_SIZE": size, "MOST_MERGED": 8, "WHOLE": 1, "TILE": 6 * size}
            product = matvec(page, stored, layout(32, 6 * size, 1), found["0.4"], False, use=use, rows=37)["0.4"]
            assert worst(product, weights @ expected.reshape(-1)) < 2e-3
            attended = run_kernel(
                page, "attention_merge", {"HEAD_SIZE": size, "WORKGROUP": 32}, merge, {"0.1": np.float32}, (6,)
            )["0.1"]
        assert worst(attended.reshape(6, size), expected) < 2e-3  # the token's own key is rounded to float16 after rotation


@pytest.mark.parametrize(("key", "widths"), [("firefox", (32, 32, 24)), ("firefox", (4, 2, 64)), ("chromium", (3, 3, 32))])
def test_attention_of_a_chunk(page_of: Pages, key: str, widths: tuple[int, int, int]):
    """The last 7 tokens at once: each sees only what is before it, and only its window; append leaves what decoding would."""
    page, (key_bits, value_bits, size) = page_of(key), widths
    cache = Cache(key_bits, value_bits, size)
    rows, rng = 7, np.random.default_rng(6)
    start = cache.length - rows
    angles = np.outer(np.arange(cache.context), 0.3 ** np.arange(size // 2))
    queries = rng.standard_normal((6, rows, size)).astype(np.float32)
    back = rotate(cache.floats[0][:, start:], -angles[start : cache.length])
    qkv = np.concatenate([queries, back, cache.floats[1][:, start:]]).transpose(1, 0, 2).astype(np.float32)
    rotary = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    rings, where = cache.rings(start), state(start, folded=cache.folded, rows=rows)
    tensors = {"0.0": where, "0.1": qkv, "0.2": rotary, "1.0": rings[0], "1.1": rings[1]}
    outputs = {"0.1": np.float32, "1.0": np.uint32, "1.1": np.uint32}
    constants = {**cache.constants("read_write"), "WORKGROUP": 64}
    appended = run_kernel(page, "append", constants, tensors, outputs, (rows, 8))
    tensors = {
        "0.0": where,
        "0.1": appended["0.1"],
        "0.2": np.zeros((rows, 6, size), np.float32),
        "1.0": appended["1.0"],
        "1.1": appended["1.1"],
        **cache.tiles(),
    }
    found = run_kernel(page, "attention_prefill", cache.constants("read"), tensors, {"0.2": np.float32}, (2, 2))["0.2"]
    turned = rotate(queries, angles[start : cache.length])
    expected = np.stack([cache.attention(turned[:, row], start + row + 1) for row in range(rows)])
    assert worst(found.reshape(rows, 6, size), expected) < 2e-3


@pytest.mark.parametrize(
    ("key", "widths"),
    [("firefox", (bits, bits, 24)) for bits in (2, 3, 4, 8)] + [("chromium", (3, 2, 32)), ("firefox", (4, 16, 24))],
)
def test_folding(page_of: Pages, key: str, widths: tuple[int, int, int]):
    """A group of 32 tokens becomes the words of the reference; a rounding that falls on the other side changes a code by 1 at most."""
    key_bits, value_bits, size = widths
    cache = Cache(key_bits, value_bits, size)
    rings, tiles = cache.rings(cache.length), cache.tiles()
    tensors = {"0.0": state(folded=0), **{name: np.zeros_like(tile) for name, tile in tiles.items()}}
    tensors |= {f"1.{side}": rings[side] for side, bits in enumerate((key_bits, value_bits)) if bits < 16}
    # The ring has lost tokens 0 to 5 to 64 to 69, so the reference folds what the ring holds.
    floats = [values.copy() for values in cache.floats]
    for values in floats:
        values[:, :6] = values[:, 64:70]
    found = run_kernel(
        page_of(key), "fold", cache.constants("read", "read_write"), tensors, dict.fromkeys(tiles, np.uint32), (2, 1)
    )
    sides = zip("23", floats, cache.bits, (kv.key_tile, kv.value_tile), strict=True)
    for binding, values, bits, make in sides:
        if bits < 16:
            words = found[f"1.{binding}"].reshape(cache.heads, 3, -1)[:, 0]
            decoded = [_decoded(words[head], bits, make is kv.key_tile, size) for head in range(cache.heads)]
            expected = [
                _decoded(make(values[head, :32], bits).reshape(-1), bits, make is kv.key_tile, size)
                for head in range(cache.heads)
            ]
            differing = np.abs(np.array(decoded) - expected) > 1e-6
            assert differing.mean() < 0.01
            assert worst(np.array(decoded), np.array(expected)) < 1.1 / (2**bits - 1)


def _decoded(words: np.ndarray, bits: int, keys: bool, size: int) -> np.ndarray:
    if keys:
        return kv.decode_key_tile(words.reshape(bits + 1, size))
    return kv.decode_value_tile(words.reshape(bits + 1, 32, -1), size)


def sample(
    page: Page, logits: np.ndarray, *, draws: int = 1, seed: int = 0, seen: np.ndarray | None = None, **asked: float
) -> tuple[list[int], list[float]]:
    """The tokens that the sampler takes at ``draws`` positions, and their log-probabilities."""
    given = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "penalty": 1.0, "top_k": 0} | asked
    sampling = np.zeros(8, np.uint32)
    sampling[:4] = np.array([given[name] for name in ("temperature", "top_p", "min_p", "penalty")], np.float32).view(np.uint32)
    sampling[4:7] = given["top_k"], seed, 1
    bits = np.zeros(-(-len(logits) // 32), np.uint32)
    for token in () if seen is None else seen:
        bits[token // 32] |= np.uint32(1 << (token % 32))
    tensors = {"0.0": state(), "0.1": bits, "0.2": np.zeros(1024, np.uint32), "0.3": logits, "0.4": sampling}
    constants = {"RESULTS": 512, "FOLDING": 0, "RECENT": 0, "SUBGROUPS": 0, "WORKGROUP": 64, "VOCABULARY": len(logits)}
    outputs = {"0.2": np.uint32, "0.0": np.uint32, "0.1": np.uint32}
    found = run_kernel(page, "sample", constants, tensors, outputs, (1,), False, draws)
    results = found["0.2"].reshape(-1, 2)[:draws]
    tokens = [int(token) for token in results[:, 0]]
    if tokens[-1] != 0xFFFFFFFF:
        assert found["0.0"][:2].tolist() == [draws, tokens[-1]]
        assert all(found["0.1"][token // 32] >> (token % 32) & 1 for token in tokens)
    return tokens, results[:, 1].copy().view(np.float32).tolist()


LOGITS = np.random.default_rng(7).standard_normal(77).astype(np.float32) * 1.5


def test_the_sampler_follows_the_distribution(page_of: Pages):
    """500 positions: a chi-squared test of 8 tokens' counts, the same seed gives the same tokens, another seed others."""
    from scipy.stats import chisquare

    page, logits = page_of("firefox"), LOGITS[:8]
    drawn, _ = sample(page, logits, draws=500, seed=3)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    assert chisquare(np.bincount(drawn, minlength=8), probabilities * 500).pvalue > 1e-3
    assert sample(page, logits, draws=500, seed=3)[0] == drawn
    assert sample(page, logits, draws=500, seed=4)[0] != drawn


def noise(seed: int, position: int, count: int) -> np.ndarray:
    """float64 [count]: the Gumbel noise of each token, from the same bits as the kernel's and with exact logarithms."""

    def hashed(value: np.ndarray) -> np.ndarray:
        value = (value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D)
        value = (value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B)
        return value ^ (value >> np.uint32(16))

    first = hashed(hashed(np.array([seed], np.uint32)) + np.uint32(position))
    bits = hashed(first + np.arange(count, dtype=np.uint32))
    return -np.log(-np.log1p(-((bits >> np.uint32(9)) + 0.5) / 2**23))


@pytest.mark.parametrize("key", BROWSERS)
def test_the_noise_is_exact_where_it_is_greatest(page_of: Pages, key: str):
    """Of 20,000 tokens each draw takes the one with the greatest score, whose noise is far out in the distribution's tail."""
    logits = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    drawn, _ = sample(page_of(key), logits, draws=40, seed=11)
    for position, token in enumerate(drawn):
        scores = logits + noise(11, position, len(logits))
        assert scores[token] > scores.max() - 1e-4


def allowed(logits: np.ndarray, top_k: int, top_p: float, min_p: float) -> set[int]:
    """The tokens that are left: by sorting, as transformers' warpers do."""
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    probabilities = np.exp(logits[order] - logits.max())
    probabilities /= probabilities.sum()
    order = order[: int(np.searchsorted(np.cumsum(probabilities), top_p)) + 1]
    return {int(token) for token in order if np.exp(logits[token] - logits.max()) >= min_p}


@pytest.mark.parametrize("key", BROWSERS)
@pytest.mark.parametrize("asked", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.4}, {"top_k": 9, "top_p": 0.6, "min_p": 0.1}])
def test_what_sampling_leaves_out(page_of: Pages, key: str, asked: dict):
    """Of 500 draws every token that may come comes, and no other."""
    expected = allowed(LOGITS, asked.get("top_k", 0), asked.get("top_p", 1.0), asked.get("min_p", 0.0))
    drawn = set(sample(page_of(key), LOGITS, draws=500, **asked)[0])
    assert drawn <= expected
    assert len(drawn) >= len(expected) - 1  # the rarest may stay away


@pytest.mark.parametrize("key", BROWSERS)
def test_greedy_penalty_and_log_probabilities(page_of: Pages, key: str):
    """Temperature 0 takes the greatest after the penalty; the log-probability is the unchanged distribution's."""
    page, best = page_of(key), int(LOGITS.argmax())
    log_probabilities = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
    (token,), (logprob,) = sample(page, LOGITS, temperature=0.0)
    assert token == best
    assert logprob == pytest.approx(log_probabilities[best], abs=1e-4)
    seen = np.array([best, 1])
    changed = LOGITS.copy()
    changed[seen] = np.where(changed[seen] > 0, changed[seen] / 4, changed[seen] * 4)
    (token,), (logprob,) = sample(page, LOGITS, temperature=0.0, penalty=4.0, seen=seen)
    assert token == changed.argmax() != best
    assert logprob == pytest.approx(log_probabilities[token], abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_told(page_of: Pages, bad: float):
    """One bad logit of 77 gives no token."""
    logits = LOGITS.copy()
    logits[40] = bad
    assert sample(page_of("firefox"), logits)[0] == [0xFFFFFFFF]


def test_a_kernel_that_does_not_compile_is_named(page_of: Pages):
    """A variant with a missing constant is refused with the compiler's words, not run."""
    with pytest.raises(LaunchError, match=r"swiglu.*COLUMNS"):
        run_kernel(page_of("firefox"), "swiglu", {"WORKGROUP": 32}, {"0.0": np.zeros(4, np.float32)}, {}, (1,))
