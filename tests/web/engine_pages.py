"""Kernels of the WGSL engine on arrays, and a decoder in NumPy whose cache is quantised: the references of the engine's tests."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ipfs_accelerate_py.quantize import kv
from ipfs_accelerate_py.quantize.formats import Format, QuantizedMatrix, pack
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.page_session import Page

LIMIT_S = 300.0
WORKGROUP = 128
FLOATS = {"float32": 32, "float16": 16, "bfloat16": 16}


def run_kernel(
    page: Page,
    kernel: str,
    constants: Mapping[str, float | str],
    tensors: Mapping[str, np.ndarray],
    outputs: Mapping[str, Any],
    workgroups: tuple[int, ...],
    subgroups: bool | None = None,
    repeats: int = 1,
) -> dict[str, np.ndarray]:
    """Run a kernel on tensors named ``group.binding``; ``outputs`` gives the dtype of those that come back, flat."""
    arrays = {name: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for name, array in tensors.items()}
    message = protocol.RunKernel(
        kernel=kernel,
        constants=dict(constants),
        workgroups=workgroups,
        outputs=tuple(outputs),
        subgroups=subgroups,
        repeats=repeats,
    )
    _, found = page.ask(message, protocol.Facts, kernel, LIMIT_S, arrays)
    return {name: found[name].view(dtype) for name, dtype in outputs.items()}


def random_matrix(seed: int, rows: int, columns: int, bits: int, group_size: int) -> QuantizedMatrix:
    """Random codes, scales and zeros in the stored layout."""
    rng, form = np.random.default_rng(seed), Format(bits, group_size)
    groups = form.groups(columns)
    return pack(
        rng.integers(0, 2**bits, (rows, columns)).astype(np.uint8),
        rng.integers(1, 256, (rows, groups)).astype(np.uint8),
        rng.integers(0, 16, (rows, groups)).astype(np.uint8),
        rng.uniform(0.01, 0.02, rows).astype(np.float32),
        form,
    )


def layout(bits: int, columns: int, group_size: int, brain: bool = False) -> dict[str, float | str]:
    """The constants by which kernels find a matrix's codes, written down from the layout's description."""
    low = {3: 2}.get(bits, bits)
    block = 128 // low
    blocks = -(-columns // block)
    sub = min(32, block) if bits <= 8 else block
    groups = -(-columns // group_size) if bits <= 8 else 1
    return {
        "BITS": bits,
        "BRAIN": int(brain),
        "BLOCK": block,
        "SUB_BLOCK": sub,
        "SUBS": block // sub,
        "SUB_QUADS": sub // 4,
        "ORDER": bits,
        "SUB_VEC4S": -(-sub // 16),
        "LEVELS": 2**bits,
        "LARGEST_CODE": 2 ** min(bits, 8) - 1,
        "GROUP_SIZE": group_size if bits <= 8 else blocks * block,
        "GROUPS": groups,
        "SCALE_WORDS": -(-groups // 4),
        "ZERO_WORDS": -(-groups // 8),
        "HIGH_WORDS": blocks * block // 32 if bits == 3 else 1,
        "ROW_VEC4S": blocks,
        "ROW_BLOCKS": blocks,
        "PADDED": blocks * block,
        "COLUMNS": columns,
        **{name: f"scales[{word}u]" for word, name in enumerate(("BIAS_BASE", "SCALES_BASE", "ZEROS_BASE", "HIGH_BASE"), 2)},
    }


def buffers(matrix: QuantizedMatrix | np.ndarray, bias: np.ndarray | None = None, first_row: int = 0) -> dict[str, np.ndarray]:
    """The two buffers of a matrix as the engine uploads it. Float matrices: float32, float16, or uint16 holding bfloat16."""
    if isinstance(matrix, np.ndarray):
        rows, columns = matrix.shape
        words = np.zeros((rows, -(-columns * matrix.itemsize // 16) * 16), np.uint8)
        words[:, : columns * matrix.itemsize] = np.ascontiguousarray(matrix).view(np.uint8)
        values, scales, sizes = words.reshape(-1).view(np.uint32), [], [0, 0]
        high_at = 0
    else:
        rows, columns = matrix.rows, matrix.columns
        size = layout(matrix.format.bits, columns, matrix.format.group_size)
        codes = np.zeros((rows, int(size["ROW_VEC4S"]) * 4), np.uint32)
        width = min(codes.shape[1], matrix.codes.shape[1])  # the rest of a group is padding that no block reaches
        codes[:, :width] = matrix.codes[:, :width]
        planes, high_at = [codes.reshape(-1)], codes.size
        if matrix.codes_high is not None:
            high = np.zeros((rows, int(size["HIGH_WORDS"])), np.uint32)
            width = min(high.shape[1], matrix.codes_high.shape[1])
            high[:, :width] = matrix.codes_high[:, :width]
            planes.append(high.reshape(-1))
        values = np.concatenate(planes)
        values = np.concatenate([values, np.zeros(-values.size % 4, np.uint32)])
        scales = [matrix.scale_codes.reshape(-1), matrix.zero_codes.reshape(-1)]
        sizes = [matrix.scale_codes.size, matrix.zero_codes.size]
    row_scales = [] if isinstance(matrix, np.ndarray) else [matrix.row_scales.astype(np.float32).view(np.uint32)]
    bias_at = 16 + sum(part.size for part in row_scales)
    biases = [] if bias is None else [bias.astype(np.float32).view(np.uint32)]
    scales_at = bias_at + sum(part.size for part in biases)
    header = np.zeros(16, np.uint32)
    header[:6] = rows, first_row, bias_at, scales_at, scales_at + sizes[0], high_at
    return {"0.0": values, "0.1": np.concatenate([header, *row_scales, *biases, *scales])}


def reduction(subgroups: bool, sums: int = 1) -> dict[str, float | str]:
    return {"SUBGROUPS": int(subgroups), "WORKGROUP": WORKGROUP, "SUMS": sums}


class Reference:
    """A llama-like decoder in NumPy with a cache that folds as the engine's does; ``weights`` by transformers' names."""

    def __init__(self, config: Any, weights: Mapping[str, np.ndarray], frequencies: np.ndarray) -> None:
        self.config, self.weights = config, weights
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.frequencies = frequencies

    def greedy(self, ids: np.ndarray, new: int, chunk: int, bits: tuple[int, int], recent: int, cut: int = 0) -> list[int]:
        """The likeliest ``new`` tokens after ``ids``, one at a time; the other arguments as of ``logits``."""
        known = list(ids)
        for _ in range(new):
            edges = [*range(0, cut, chunk), *range(cut, len(ids), chunk), *range(len(ids), len(known))]
            known.append(int(self._logits(np.array(known), edges, *bits, recent, cut)[-1].argmax()))
        return known[len(ids) :]

    def logits(self, ids: np.ndarray, chunk: int, key_bits: int, value_bits: int, recent: int) -> np.ndarray:
        """float32 [tokens, vocabulary]; ``chunk`` tokens at a time, and what left the recent window is quantised between chunks."""
        return self._logits(ids, list(range(0, len(ids), chunk)), key_bits, value_bits, recent)

    def _logits(
        self, ids: np.ndarray, edges: list[int], key_bits: int, value_bits: int, recent: int, cut: int = 0
    ) -> np.ndarray:
        """Chunks begin at ``edges``. The first ``cut`` tokens are what an earlier, longer answer left: quantised for all that follow."""
        config, length, folded = self.config, 0, 0
        layers = range(config.num_hidden_layers)
        shape = (config.num_key_value_heads, 0, self.size)
        self.keys = {layer: np.zeros(shape) for layer in layers}
        self.values = {layer: np.zeros(shape) for layer in layers}
        rows = []
        for start, end in pairwise([*edges, len(ids)]):
            hidden = self.weights["model.embed_tokens.weight"][ids[start:end]]
            for layer in layers:
                hidden = self._layer(layer, hidden, length, folded, key_bits, value_bits)
            length += len(hidden)
            folded = max(folded, cut if length == cut else 0)
            while min(key_bits, value_bits) < 16 and length - folded >= recent + kv.FOLD:
                folded += kv.FOLD
            head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
            rows.append(self._norm("model.norm", hidden) @ head.T)
        return np.concatenate(rows)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.rms_norm_eps)
        return x * scale * self.weights[f"{name}.weight"]

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def _layer(self, layer: int, hidden: np.ndarray, length: int, folded: int, key_bits: int, value_bits: int) -> np.ndarray:
        at, tokens = f"model.layers.{layer}.", len(hidden)
        normed = self._norm(f"{at}input_layernorm", hidden)
        angles = np.outer(np.arange(length, length + tokens), self.frequencies)
        turned = {"q": None, "k": None, "v": None}
        for part in turned:
            heads = self._linear(f"{at}self_attn.{part}_proj", normed).reshape(tokens, -1, self.size).transpose(1, 0, 2)
            turned[part] = heads if part == "v" else rotate(heads, angles)
        stored = [(self.keys, turned["k"], key_bits, kv.folded_keys), (self.values, turned["v"], value_bits, kv.folded_values)]
        seen = []
        for cache, new, bits, fold in stored:
            kept = new.astype(np.float16 if bits < 32 else np.float32).astype(np.float32)
            cache[layer] = np.concatenate([cache[layer], kept], axis=1)
            whole = cache[layer].astype(np.float32)
            if bits < 16 and folded:
                whole = np.concatenate([fold(whole[:, :folded], bits), whole[:, folded:]], axis=1)
            seen.append(whole)
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        keys, values = (np.repeat(part, group, axis=0) for part in seen)
        scores = turned["q"] @ keys.transpose(0, 2, 1) / np.sqrt(self.size)
        query, key = np.arange(length, length + tokens)[:, None], np.arange(length + tokens)[None]
        hidden_from = key > query
        window = getattr(self.config, "sliding_window", None)
        if window and getattr(self.config, "use_sliding_window", True):
            hidden_from = hidden_from | (key <= query - window)
        scores = np.where(hidden_from, -np.inf, scores)
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (powers / powers.sum(-1, keepdims=True)) @ values
        hidden = hidden + self._linear(f"{at}self_attn.o_proj", attended.transpose(1, 0, 2).reshape(tokens, -1))
        normed = self._norm(f"{at}post_attention_layernorm", hidden)
        gate = self._linear(f"{at}mlp.gate_proj", normed)
        gated = gate / (1 + np.exp(-gate)) * self._linear(f"{at}mlp.up_proj", normed)
        return hidden + self._linear(f"{at}mlp.down_proj", gated)


def rotate(heads: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rotary positions of [heads, tokens, channels] by angles [tokens, channels / 2], pairs half a head apart."""
    first, second = np.split(heads, 2, axis=-1)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest difference, relative to the greatest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
