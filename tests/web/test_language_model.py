"""Whole decoders in real browsers against transformers on the same weights, and an answer from its beginning to each of its ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_models import build, logits, save, some_ids, weights
from engine_pages import Reference, worst
from product_model import require

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.web.language_model import LanguageModel, LoadProgress, Sampling
from ipfs_accelerate_py.web.language_model_folder import read_folder
from ipfs_accelerate_py.web.remembered import tuned_numbers

pytest.importorskip("transformers")

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("firefox", "llama", {"bits": 4, "group_size": 64}),
    ("firefox", "qwen2", {"bits": 2, "budget": 4.5}),  # layers of different widths
    ("firefox", "mistral", {"bits": 3}),
    ("firefox", "qwen2", {"bits": None, "dtype": "bfloat16"}),
    ("chromium", "llama", {"bits": 3}),
    ("chromium", "qwen2", {"bits": None, "dtype": "float16"}),
]


def opened(key: str, folder: Path | Any, **options: Any) -> LanguageModel:
    """A loaded model whose chunks are shorter than the tests' prompts."""
    model = LanguageModel(
        require(key), folder, **({"context_length": 160, "prefill_tokens": 24, "key_bits": 32, "value_bits": 32} | options)
    )
    try:
        model.load()
    except BaseException:
        model.close()
        raise
    return model


@pytest.mark.parametrize(("key", "name", "form"), CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, key: str, name: str, form: dict[str, Any]):
    """Every position's logits, of prompts and of single tokens, within 1e-3 of PyTorch on the dequantised weights."""
    ids = some_ids(70)
    expected = logits(save(build(name), tmp_path / "model", **form), ids)
    with opened(key, tmp_path / "model") as model:
        for path in ("prefill", "decode"):
            assert worst(model.logits(ids, path=path), expected) < 1e-3


def test_cheaper_arithmetic_stays_near(tmp_path: Path):
    """Prompts in float16 within 1e-2, single tokens with int8 activations within 0.15, and neither is the float32 result; what an
    adapter lacks is said."""
    ids = some_ids(40)
    expected = logits(save(build("llama"), tmp_path / "model", 4), ids)
    options = {"prefill_arithmetic": "float16", "activations": "int8"}
    with opened("firefox", tmp_path / "model", **options) as model:
        assert 1e-5 < worst(model.logits(ids, path="prefill"), expected) < 1e-2
        # Rounding to 127 steps costs half a percent a product, which these random weights enlarge from layer to layer.
        assert 1e-4 < worst(model.logits(ids, path="decode"), expected) < 0.15
        assert model.metrics()["variant"]["activations"] == "int8"
    with opened("chromium", tmp_path / "model", prefill_arithmetic="int8") as model:
        assert 1e-4 < worst(model.logits(ids, path="prefill"), expected) < 0.15
    with opened("firefox", tmp_path / "model", activations="int8", packed_down=True) as model:
        assert 1e-4 < worst(model.logits(ids, path="decode"), expected) < 0.15
        assert any("packed" in key for key in model.metrics()["shapes"])
    with opened("firefox", tmp_path / "model", activations="planned") as model:  # of which nothing is known on this adapter
        assert worst(model.logits(ids, path="decode"), expected) < 1e-3
    with pytest.raises(LaunchError, match="no subgroups of a known size") as raised:
        opened("firefox", tmp_path / "model", subgroups=True).close()
    assert raised.value.error_class == "unsupported"


def test_shapes_that_were_searched_are_remembered_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A search times every product in several shapes and remembers what is faster; a load takes what is remembered for its adapter, the
    logits stay those of transformers, and a shape that the adapter cannot have is refused, so it was taken."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    folder, ids = tmp_path / "model", some_ids(12)
    expected = logits(save(build("llama"), folder, 4), ids)
    with opened("chromium", folder, activations="planned") as model:
        found = model.tune(budget_s=40)
        assert tuned_numbers(model.browser) == found["remembered"]
    assert set(found["widths"].values()) <= {8, 32} and len(found["widths"]) >= 5  # each product was timed with both kinds
    tried = [product for product in found["products"] if product["shape"] is not None]
    assert tried and all(ns > 0 for product in found["products"] for ns in product["ns"])
    keys = {product["key"] for product in found["products"]}
    assert set(found["fastest"]) <= keys

    def numbers(workgroup: int, lanes: int, rows: int) -> dict[str, int]:
        shape = {"workgroup": workgroup, "lanes": lanes, "rows": rows}
        return {f"{found['adapter_key']}|{key} {name}": value for key in keys for name, value in shape.items()}

    with opened("chromium", folder, tuned=numbers(64, 32, 4)) as model:
        assert worst(model.logits(ids, path="decode"), expected) < 1e-3
        assert {tuple(shape.values()) for shape in model.metrics()["shapes"].values()} == {(64, 32, 4)}
    widths = {f"{found['adapter_key']}|{key} activations": 8 for key in found["widths"]}
    with opened("chromium", folder, activations="planned", tuned=widths) as model:
        assert all(" int8" in key for key in model.metrics()["shapes"])
        assert 1e-4 < worst(model.logits(ids, path="decode"), expected) < 0.15
    with pytest.raises(LaunchError, match="matvec"):
        opened("chromium", folder, tuned=numbers(4096, 32, 1)).close()


def test_512_tokens_in_the_plain_variant(tmp_path: Path):
    """Chunks, splits and rotations far from the beginning; a float16 cache stays within 1e-2."""
    ids = some_ids(512)
    expected = logits(save(build("llama"), tmp_path / "model", 4), ids)
    options = {"context_length": 512, "prefill_tokens": 96, "subgroups": False, "key_bits": 16, "value_bits": 16}
    with opened("firefox", tmp_path / "model", **options) as model:
        for path in ("prefill", "decode"):
            assert worst(model.logits(ids, path=path), expected) < 1e-2


@pytest.mark.parametrize(
    ("key", "widths"),
    [("firefox", widths) for widths in ((16, 16), (8, 3), (4, 2), (3, 8), (2, 4))] + [("chromium", (4, 2))],
)
def test_a_quantised_cache_is_that_of_the_reference(tmp_path: Path, key: str, widths: tuple[int, int]):
    """130 tokens with 32 recent ones: folded between chunks as the NumPy cache folds, and not merely near the float one."""
    key_bits, value_bits = widths
    ids = some_ids(130)
    torch_model = build("llama")
    save(torch_model, tmp_path / "model", None)
    files = read_folder(tmp_path / "model")
    reference = Reference(torch_model.config, weights(torch_model), np.array(files.decoder.inverse_frequencies))
    assert worst(reference.logits(ids, 24, 32, 32, 32), logits(torch_model, ids)) < 1e-4
    options = {"key_bits": key_bits, "value_bits": value_bits, "recent_tokens": 32}
    with opened(key, files, **options) as model:
        paths = {"prefill": 24, "decode": 1} if key == "firefox" else {"decode": 1}
        for path, chunk in paths.items():
            found = model.logits(ids, path=path)
            near = np.linalg.norm(found - reference.logits(ids, chunk, key_bits, value_bits, 32))
            far = np.linalg.norm(found - logits(torch_model, ids))
            scale = np.linalg.norm(found)
            assert near < 1e-2 * scale
            if min(widths) <= 4:
                assert far > 5 * near  # what quantising changes is larger than the difference to the reference
        metrics = model.metrics()
        assert metrics["quantized_tokens"] == (0 if min(widths) == 16 else 96)


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LanguageModel, Any]]:
    """A loaded model, and transformers' with the same weights."""
    folder = tmp_path_factory.mktemp("greedy") / "model"
    torch_model = save(build("qwen2"), folder, None)
    with opened("firefox", folder) as model:
        yield model, torch_model


def expected_tokens(model: Any, prompt: np.ndarray, count: int) -> list[int]:
    import torch

    with torch.no_grad():
        made = model.generate(
            torch.from_numpy(prompt)[None], max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return made[0, len(prompt) :].tolist()


def test_greedy_tokens_and_their_log_probabilities(greedy: tuple[LanguageModel, Any]):
    """The tokens of transformers' greedy search, from the fused argmax and from the sampler; log-probabilities of the same logits."""
    model, torch_model = greedy
    prompt = some_ids(30, seed=1)
    expected = expected_tokens(torch_model, prompt, 20)
    assert [token.id for token in model.generate(prompt, max_new_tokens=20, stop=())] == expected
    assert model.finish_reason == "length"
    told = list(model.generate(prompt, max_new_tokens=20, stop=(), sampling=Sampling(logprobs=True)))
    assert [token.id for token in told] == expected
    rows = logits(torch_model, np.concatenate([prompt, expected[:-1]]))[len(prompt) - 1 :]
    rows = rows - np.log(np.exp(rows.astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose([token.logprob for token in told], rows[np.arange(20), expected], atol=1e-3)


def test_a_seed_decides(greedy: tuple[LanguageModel, Any]):
    """The same seed gives the same tokens, however they were begun; another seed gives others."""
    model, _ = greedy
    prompt = some_ids(30, seed=2)

    def draw(seed: int) -> list[int]:
        return [
            token.id
            for token in model.generate(prompt, max_new_tokens=12, stop=(), sampling=Sampling(temperature=1.5, seed=seed))
        ]

    first = draw(1)
    model.truncate(0)
    assert draw(1) == first
    assert draw(2) != first


def test_what_is_cached_is_not_computed_again(greedy: tuple[LanguageModel, Any]):
    """A prompt that goes on from the last answer reuses it, its tokens are those of a fresh start, and no memory grows."""
    model, torch_model = greedy
    model.truncate(0)
    prompt = some_ids(40, seed=3)
    answer = [token.id for token in model.generate(prompt, max_new_tokens=10, stop=())]
    longer = np.concatenate([prompt, answer, some_ids(5, seed=4)])
    found = [token.id for token in model.generate(longer, max_new_tokens=10, stop=())]
    assert model.reused_tokens == 49  # the answer's last token was never processed
    assert found == expected_tokens(torch_model, longer, 10)
    before = model.metrics()["total_bytes"]
    for _ in range(5):
        list(model.generate(longer, max_new_tokens=3, stop=()))
    assert model.metrics()["total_bytes"] == before  # no answer leaves a buffer behind


def test_stop_sequences_end_an_answer(greedy: tuple[LanguageModel, Any]):
    """A token, and a sequence of two, end the answer and are its last tokens; what was computed beyond is forgotten."""
    model, torch_model = greedy
    prompt = some_ids(30, seed=1)
    expected = expected_tokens(torch_model, prompt, 20)
    for stop in (expected[6], expected[5:7]):
        found = [token.id for token in model.generate(prompt, max_new_tokens=20, stop=(stop,))]
        end = next(
            at for at in range(20) if expected[at] == expected[6] and (isinstance(stop, int) or expected[at - 1] == expected[5])
        )
        assert found == expected[: end + 1]
        assert model.finish_reason == "stop"
        assert model.metrics()["cached_tokens"] <= 30 + end + 1


def test_a_full_context_ends_an_answer(greedy: tuple[LanguageModel, Any]):
    """The context's last place is used, then the answer ends and says why; a prompt that fills it is refused."""
    model, _ = greedy
    assert len(list(model.generate(some_ids(155), max_new_tokens=50, stop=()))) == 160 - 155 + 1
    assert model.finish_reason == "context"
    with pytest.raises(UserError, match=r"160 tokens leaves no room in a context of 160"):
        model.generate(some_ids(160))


def test_cancelling(greedy: tuple[LanguageModel, Any]):
    """From another thread, and by closing the iterator: the answer ends within the submits in flight, and the next one is right."""
    model, torch_model = greedy
    stream = model.generate(some_ids(30, seed=1), max_new_tokens=100, stop=())
    next(stream)
    thread = threading.Thread(target=model.cancel)
    thread.start()
    left = list(stream)
    thread.join(60)
    assert model.finish_reason == "cancelled"
    assert len(left) < 99
    stream = model.generate(some_ids(30, seed=1), max_new_tokens=100, stop=())
    next(stream)
    stream.close()
    assert model.finish_reason == "cancelled"
    found = [token.id for token in model.generate(some_ids(30, seed=1), max_new_tokens=8, stop=())]
    assert found == expected_tokens(torch_model, some_ids(30, seed=1), 8)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda model: model.generate([]), "A prompt must have at least one token"),
        (lambda model: model.generate([331]), "Token 331 is not in the model's vocabulary of 331"),
        (lambda model: model.generate([1], max_new_tokens=0), "max_new_tokens must be at least 1, not 0"),
        (lambda model: Sampling(top_p=0), "top_p must be above 0 and at most 1, not 0"),
        (lambda model: Sampling(temperature=float("nan")), "temperature must be 0 or more, not nan"),
        (lambda model: model.truncate(-1), "A cache cannot be cut to -1 tokens"),
        (lambda model: model.logits(some_ids(161)), "161 tokens are more than the context of 160"),
    ],
)
def test_bad_requests_are_refused(greedy: tuple[LanguageModel, Any], wrong: Any, told: str):
    """One sentence each, before the browser is asked."""
    with pytest.raises(UserError, match=told):
        wrong(greedy[0])


def test_a_quantised_group_goes_whole_and_bytes_are_exact(tmp_path: Path):
    """Truncating into a folded group leaves whole groups, quantised for all that follows, and the answers before and after it are the
    NumPy cache's; buffers have the bytes of the formats."""
    torch_model = save(build("llama"), tmp_path / "model", 4, group_size=64)
    progress: list[LoadProgress] = []
    options = {"key_bits": 4, "value_bits": 2, "recent_tokens": 32, "context_length": 160, "prefill_tokens": 24}
    with LanguageModel(require("firefox"), tmp_path / "model", **options) as model:
        metrics = model.load(progress.append)
        assert [step.stage for step in progress[-2:]] == ["weights", "compile"]
        assert progress[-1].done_bytes == sum(file.bytes for file in model.files.files)
        ids = some_ids(120)
        reference = Reference(torch_model.config, weights(torch_model), np.array(model.files.decoder.inverse_frequencies))
        first = [token.id for token in model.generate(ids, max_new_tokens=4, stop=())]
        assert first == reference.greedy(ids, 4, 24, (4, 2), 32)
        assert model.truncate(50) == 32
        assert model.truncate(100) == 32
        second = [token.id for token in model.generate(ids, max_new_tokens=4, stop=())]
        assert second == reference.greedy(ids, 4, 24, (4, 2), 32, cut=32) != first
        assert model.reused_tokens == 32
    # 160 places a layer: keys 5 bits a number, values 3, and a float16 ring of 32 recent + 32 + 24, rounded up to 96 tokens.
    ring = 2 * 96 * 32 * 2
    assert metrics["buffers_bytes"]["keys"] == 2 * (ring + 2 * 160 * 32 * 5 // 8)
    assert metrics["buffers_bytes"]["values"] == 2 * (ring + 2 * 160 * 32 * 3 // 8)
    assert all(pipeline["ms"] > 0 for pipeline in metrics["pipelines"])
    # Rows of 96, 192 and 136 columns as whole vec4s of 32 codes: 48, 96 and 80 bytes.
    assert metrics["buffers_bytes"]["weights"] == 2 * ((192 + 64 + 64) * 48 + 96 * 96 + 2 * 136 * 48 + 96 * 80)


def test_weights_that_are_not_finite_are_told(tmp_path: Path):
    """NaN in a norm: no token comes, and the error says so; the model can be asked again."""
    import torch

    torch_model = build("qwen2")
    with torch.no_grad():
        torch_model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    save(torch_model, tmp_path / "model", None)
    with opened("firefox", tmp_path / "model") as model:
        for _ in range(2):
            with pytest.raises(LaunchError, match="logits after token 29 of the context are not finite") as raised:
                list(model.generate(some_ids(30), max_new_tokens=5))
            assert raised.value.error_class == "inference_failed"


@pytest.mark.parametrize("harm", ["altered", "cut"])
def test_a_damaged_shard_is_named(tmp_path: Path, harm: str):
    """A flipped byte is found by the page, a file that is cut before a browser starts; both name the shard."""
    save(build("qwen2"), tmp_path / "model", 4)
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[-1]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content if harm == "altered" else content[:-8])
    with pytest.raises(LaunchError if harm == "altered" else UserError, match=shard.name):
        opened("firefox", tmp_path / "model").close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "gpt2"}, "runs llama, qwen2, mistral and not 'gpt2'"),
        ({"hidden_act": "gelu"}, "activation silu and not 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "type 'dynamic' are not supported"),
        ({"head_dim": 20}, "heads of a multiple of 8 channels; these have 20"),
        ({"intermediate_size": 105}, "gate_proj.weight is 104 x 64; its config.json makes it 105 x 64"),
        ({"num_hidden_layers": 3}, "lacks the tensor model.layers.2"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "first 1 of 2 layers have no sliding window",
        ),
    ],
)
def test_a_model_that_does_not_fit_the_kernels_is_refused(tmp_path: Path, change: dict[str, Any], told: str):
    """Each by the part that is missing, and before a browser starts."""
    save(build("qwen2"), tmp_path / "model", None)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=told):
        LanguageModel("firefox", tmp_path / "model")


def test_options_that_are_not_there_are_refused(tmp_path: Path):
    """Widths, contexts and kinds of activations by what there is; a file that a page cannot hold by its bytes."""
    save(build("qwen2"), tmp_path / "model", None)
    for options, told in (
        ({"key_bits": 5}, "key_bits must be one of 2, 3, 4, 8, 16, 32, not 5"),
        ({"context_length": 2000}, "from 1 to the model's 1024 positions, not 2000"),
        ({"activations": "int4"}, "Unknown kind of activations 'int4'"),
        ({"packed_down": True}, "packed_down packs int8 activations: choose"),
        ({"prefill_tokens": 0}, "prefill_tokens must be at least 1"),
    ):
        with pytest.raises(UserError, match=told):
            LanguageModel("firefox", tmp_path / "model", **options)
    from ipfs_accelerate_py.web import language_model_folder

    file = replace(read_folder(tmp_path / "model").files[0], bytes=2**31)
    with pytest.raises(UserError, match="save the model in smaller shards"):
        language_model_folder._checked(file)
