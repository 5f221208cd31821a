"""The language-model benchmarks' parts: the int4 graph that is written for onnxruntime-web, and what the store keeps of a launch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.store.connection import reading

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QWEN2 = {
    "model_type": "qwen2",
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def reference(path: Path) -> Any:
    """transformers' model with the graph's weights dequantised: (code - 8) * scale, the low four bits of a byte first."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    arguments = {key: value for key, value in QWEN2.items() if key != "model_type"}
    model = Qwen2ForCausalLM(Qwen2Config(**arguments, tie_word_embeddings=False)).eval()
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}

    def linear(name: str) -> np.ndarray:
        codes = tensors[f"{name}.codes"]
        rows = codes.shape[0]
        values = np.stack([codes & 15, codes >> 4], axis=-1).reshape(rows, -1, 32).astype(np.float32) - 8
        return (values * tensors[f"{name}.scales"].reshape(rows, -1, 1)).reshape(rows, -1)

    state = {
        "model.embed_tokens.weight": tensors["embedding"],
        "model.norm.weight": tensors["final_norm.weight"],
        "lm_head.weight": linear("head"),
    }
    names = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj"}
    names |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    for layer in range(2):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        state |= {f"{theirs}.{long}.weight": linear(f"{ours}.{short}") for short, long in names.items()}
        state |= {f"{theirs}.{names[one]}.bias": tensors[f"{ours}.{one}.bias"] for one in ("query", "key", "value")}
        state[f"{theirs}.input_layernorm.weight"] = tensors[f"{ours}.attention_norm.weight"]
        state[f"{theirs}.post_attention_layernorm.weight"] = tensors[f"{ours}.feed_forward_norm.weight"]
    model.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()})
    return model


def test_the_written_graph_is_the_decoder(tmp_path: Path):
    """A prompt of 9 tokens and three single ones, two rows, on onnxruntime's CPU: the logits of transformers' with the same weights."""
    import torch
    from language_models.blank_onnx import write_blank_onnx

    path = write_blank_onnx(QWEN2, tmp_path, "float32", 64)
    model = reference(path)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(3).integers(0, 200, (2, 12))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    names = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    past = {f"past.{name}": np.zeros((2, 2, 16, 16), np.float32) for name in names}
    for begin, end in ((0, 9), (9, 10), (10, 11), (11, 12)):
        feeds = {"input_ids": ids[:, begin:end], "positions": np.arange(begin, end, dtype=np.int32), **past}
        logits, *present = session.run(["logits", *(f"present.{name}" for name in names)], feeds)
        past = {f"past.{name}": value for name, value in zip(names, present, strict=True)}
        # accuracy_level 4 rounds activations to 8 bits in each group.
        assert np.abs(logits - expected[:, end - 1]).max() < 3e-2 * np.abs(expected[:, end - 1]).max()


def test_what_is_prepared_beforehand_is_checked(tmp_path: Path):
    """A folder that lacks a peer's model is refused with the command that makes it."""
    from language_models.peers import check_prepared

    with pytest.raises(UserError, match=f"has no blank-qwen2-tiny-float16 .*--prepare-only {tmp_path}"):
        check_prepared(tmp_path, ["onnxruntime-web-float16"], resolve("qwen2", size="tiny", weights="synthetic"))


def test_launches_are_in_the_store(tmp_path: Path):
    """Under our engine's name, measured, with samples and adapter; a failed one with its class; after each launch, not at the end."""
    from language_models.peers import PEERS
    from language_models.records import our_target, recorded
    from language_models.sides import Run, Shape

    model, shape = resolve("qwen2", size="tiny", weights="synthetic"), Shape(prompt=8, new_tokens=5, generations=2)
    work = PEERS["onnxruntime-web"].work(model, shape)
    ours = our_target("chromium", activations="int8", key_bits=16, value_bits=16, packed_down=False)
    found = Run((0.5, 0.4), (0.01, 0.02), {"device": {"software_adapter": True, "vendor": "x"}}, {"compile": 7})
    path = tmp_path / "runs.duckdb"
    with recorded(path, "llm_decode", {}, 0) as records:
        assert records is not None
        records.add(work, ours, 0, shape, found)
        with reading(path) as connection:
            assert connection.execute("SELECT count(*) FROM launch").fetchone() == (1,)
        records.add(work, ours, 1, shape, LaunchError("timeout", "it took too long"))
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT engine, status, provenance, samples_ns, first_token_ns, per_token_ns, software_adapter, error_class "
            "FROM launch JOIN spec USING (spec_hash) JOIN target USING (target_hash) ORDER BY launch_index"
        ).fetchall()
    assert rows[0] == (
        "wgsl, int8",
        "ok",
        "measured",
        [540_000_000, 480_000_000],
        [500_000_000, 400_000_000],
        [10_000_000, 20_000_000],
        True,
        None,
    )
    assert rows[1][:3] == ("wgsl, int8", "failed", "measured")
    assert rows[1][-1] == "timeout"
    assert asdict(work)["precision"] == "int4"
