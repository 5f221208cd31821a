"""An int4 decoder for onnxruntime-web at a model's real shape, with random codes: written as it is, in seconds and little memory.

The graph is that of models/prepared.py (llama and qwen2; a cache of fixed length), with MatMulNBits in groups of 32 as our own export has,
and arranged as well as its operators allow: queries of a key-value head are one product, so keys are never repeated. Exporting from torch
makes the float32 weights, a float32 reference of the whole answer, the float32 graph, its check, and the quantised graph, of which nothing
is needed for speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

GROUP = 32
SHARD_BYTES = 1_500_000_000
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


class _Graph:
    """Nodes, and tensors of which the large ones go to files beside the graph as they are made."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self.rng = np.random.default_rng(seed)
        self._folder, self._name = folder, name
        self._files = 0
        self._offset = SHARD_BYTES
        self._values = 0

    def op(self, kind: str, inputs: Sequence[str], *, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        return self.ops(kind, inputs, 1, domain=domain, names=[output] if output else None, **attributes)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[str],
        count: int,
        *,
        domain: str = "",
        names: list[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        self._values += 1
        made = names or [f"{kind}.{self._values}.{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, made, domain=domain, name=f"{kind}.{self._values}", **attributes))
        return made

    def constant(self, name: str, array: np.ndarray) -> str:
        if name not in self.tensors:
            self.tensors[name] = onnx.numpy_helper.from_array(array, name)
        return name

    def stored(self, name: str, array: np.ndarray) -> str:
        """A large tensor, in a file."""
        if self._offset + array.nbytes > SHARD_BYTES:
            self._files, self._offset = self._files + 1, 0
        location = f"{self._name}.{self._files}.data"
        with (self._folder / location).open("ab") as file:
            file.write(array.tobytes())
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", self._offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._offset += array.nbytes
        self.tensors[name] = tensor
        return name

    def linear(self, name: str, x: str, rows: int, columns: int, dtype: Any, bias: bool = False) -> str:
        """``x`` [.., columns] times a random matrix [rows, columns] of 4 bits whose products stay near 1."""
        blocks = columns // GROUP
        codes = self.rng.integers(0, 256, (rows, blocks, GROUP // 2), np.uint8)
        spread = 1 / (4.6 * math.sqrt(columns))  # 4.6 is the standard deviation of a code
        scales = (spread * self.rng.uniform(0.5, 1.5, rows * blocks)).astype(dtype)
        inputs = [x, self.stored(f"{name}.codes", codes), self.stored(f"{name}.scales", scales)]
        attributes = {"K": columns, "N": rows, "bits": 4, "block_size": GROUP, "accuracy_level": 4}
        product = self.op("MatMulNBits", inputs, domain="com.microsoft", **attributes)
        if not bias:
            return product
        return self.op("Add", [product, self.stored(f"{name}.bias", (0.02 * self.rng.standard_normal(rows)).astype(dtype))])

    def norm(self, name: str, x: str, size: int, dtype: Any, epsilon: float) -> str:
        weights = self.stored(f"{name}.weight", (1 + 0.1 * self.rng.standard_normal(size)).astype(dtype))
        return self.op("SimplifiedLayerNormalization", [x, weights], axis=-1, epsilon=epsilon, stash_type=1)


def write_blank_onnx(config: Mapping[str, Any], folder: Path, activations: str, longest: int, seed: int = 0) -> Path:
    """Write ``decoder.onnx`` and its data to ``folder`` (which is there and empty). ``config`` is a llama's or qwen2's config.json,
    ``activations`` float32 or float16, of the cache and scales too; ``longest`` positions have rotary angles."""
    dtype, kind = np.dtype(activations), TYPES[activations]
    hidden_size, heads = config["hidden_size"], config["num_attention_heads"]
    groups_of_heads = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or hidden_size // heads
    wide, layers, epsilon = config["intermediate_size"], config["num_hidden_layers"], config["rms_norm_eps"]
    biased = config.get("model_type") == "qwen2" or config.get("attention_bias", False)
    graph = _Graph(folder, "decoder.onnx", seed)

    def numbers(name: str, *values: int) -> str:
        return graph.constant(name, np.array(values, np.int64))

    def integer(name: str, value: int) -> str:
        return graph.constant(name, np.array(value, np.int32))

    # Rows of random numbers again and again: what they are does not matter, how many bytes they have does.
    pool = (0.02 * graph.rng.standard_normal((min(4096, config["vocab_size"]), hidden_size))).astype(np.float16)
    table = np.resize(pool, (config["vocab_size"], hidden_size))
    hidden = graph.op("Cast", [graph.op("Gather", [graph.stored("embedding", table), "input_ids"])], to=kind)
    theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta", 10000.0)
    angles = np.outer(np.arange(longest), theta ** (-np.arange(0, size, 2) / size))
    turns = [
        graph.op("Gather", [graph.stored(name, part(angles).astype(dtype)), "positions"])
        for name, part in (("cosines", np.cos), ("sines", np.sin))
    ]

    # The cache: slot c takes row c - positions[0] of the new keys where there is such a row; see models/modules.py.
    length = graph.op("Shape", ["past.0.key"], start=2, end=3)
    count = graph.op("Cast", [graph.op("Squeeze", [length, numbers("axis.0", 0)])], to=TensorProto.INT32)
    slots = graph.op("Range", [integer("zero", 0), count, integer("one", 1)])
    first = graph.op("Gather", ["positions", numbers("first", 0)])
    last = graph.op("Gather", ["positions", numbers("last", -1)])
    rows = graph.op("Sub", [slots, first])
    begun = graph.op("GreaterOrEqual", [rows, integer("zero", 0)])
    written = graph.op("And", [begun, graph.op("LessOrEqual", [slots, last])])
    rows = graph.op("Where", [written, rows, integer("zero", 0)])
    written = graph.op("Unsqueeze", [written, numbers("axes.013", 0, 1, 3)])
    seen = graph.op("LessOrEqual", [slots, graph.op("Unsqueeze", ["positions", numbers("axis.1", 1)])])
    masks = [graph.constant(name, np.array(value, dtype)) for name, value in (("seen", 0.0), ("hidden", -30000.0))]
    bias = graph.op("Where", [seen, *masks])  # [sequence, cache]

    def rotated(x: str) -> str:
        a, b = graph.ops("Split", [x], 2, axis=-1, num_outputs=2)
        low = graph.op("Sub", [graph.op("Mul", [a, turns[0]]), graph.op("Mul", [b, turns[1]])])
        high = graph.op("Add", [graph.op("Mul", [b, turns[0]]), graph.op("Mul", [a, turns[1]])])
        return graph.op("Concat", [low, high], axis=-1)

    def in_heads(x: str, own: int) -> str:
        return graph.op("Transpose", [graph.op("Reshape", [x, numbers(f"heads.{own}", 0, 0, own, size)])], perm=[0, 2, 1, 3])

    def cached(name: str, new: str) -> str:
        moved = graph.op("Gather", [new, rows], axis=2)
        return graph.op("Where", [written, moved, f"past.{name}"], output=f"present.{name}")

    scale = graph.constant("scale", np.array(size**-0.5, dtype))
    for layer in range(layers):
        at = f"layers.{layer}"
        normed = graph.norm(f"{at}.attention_norm", hidden, hidden_size, dtype, epsilon)
        query, key, value = (
            in_heads(graph.linear(f"{at}.{name}", normed, own * size, hidden_size, dtype, biased), own)
            for name, own in (("query", heads), ("key", groups_of_heads), ("value", groups_of_heads))
        )
        keys, values = cached(f"{layer}.key", rotated(key)), cached(f"{layer}.value", value)
        query = graph.op("Mul", [rotated(query), scale])
        query = graph.op("Reshape", [query, numbers("grouped", 0, groups_of_heads, -1, size)])
        scores = graph.op("MatMul", [query, graph.op("Transpose", [keys], perm=[0, 1, 3, 2])])
        scores = graph.op("Add", [graph.op("Reshape", [scores, numbers("by_head", 0, heads, -1, 0)]), bias])
        shares = graph.op("Reshape", [graph.op("Softmax", [scores], axis=-1), numbers("by_group", 0, groups_of_heads, -1, 0)])
        attended = graph.op("Reshape", [graph.op("MatMul", [shares, values]), numbers("each_head", 0, heads, -1, size)])
        attended = graph.op("Reshape", [graph.op("Transpose", [attended], perm=[0, 2, 1, 3]), numbers("flat", 0, 0, -1)])
        hidden = graph.op("Add", [hidden, graph.linear(f"{at}.output", attended, hidden_size, heads * size, dtype)])
        normed = graph.norm(f"{at}.feed_forward_norm", hidden, hidden_size, dtype, epsilon)
        gate, up = (graph.linear(f"{at}.{name}", normed, wide, hidden_size, dtype) for name in ("gate", "up"))
        gated = graph.op("Mul", [graph.op("Mul", [gate, graph.op("Sigmoid", [gate])]), up])
        hidden = graph.op("Add", [hidden, graph.linear(f"{at}.down", gated, hidden_size, wide, dtype)])

    ending = [numbers(name, *values) for name, values in (("from", (-1,)), ("to", (2**31 - 1,)), ("axis.1", (1,)))]
    hidden = graph.norm("final_norm", graph.op("Slice", [hidden, *ending]), hidden_size, dtype, epsilon)
    logits = graph.op("Squeeze", [graph.linear("head", hidden, config["vocab_size"], hidden_size, dtype), "axis.1"])
    graph.op("Cast", [logits], output="logits", to=TensorProto.FLOAT)

    cache = ["batch", groups_of_heads, "cache", size]
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    inputs = [("input_ids", TensorProto.INT64, ["batch", "sequence"]), ("positions", TensorProto.INT32, ["sequence"])]
    inputs += [(f"past.{name}", kind, cache) for name in names]
    outputs = [
        ("logits", TensorProto.FLOAT, ["batch", config["vocab_size"]]),
        *((f"present.{name}", kind, cache) for name in names),
    ]
    values = [[helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs)]
    made = helper.make_graph(graph.nodes, "decoder", *values, list(graph.tensors.values()))
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "decoder.onnx"
    onnx.save(helper.make_model(made, opset_imports=imports, ir_version=10), path)
    return path
