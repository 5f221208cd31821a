"""Several sequences in one engine: each has the tokens that it would have alone, whoever joins, leaves or is cancelled beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_models import build, logits, save, some_ids, weights
from engine_pages import WORKGROUP, Reference, buffers, layout, random_matrix, reduction, run_kernel, worst
from product_model import require

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.language_model import LanguageModel, Sampling, _sampling
from ipfs_accelerate_py.web.language_model_batch import Batch
from ipfs_accelerate_py.web.language_model_protocol import SequenceTokens

pytest.importorskip("transformers")

SHAPE = {"context_length": 160, "prefill_tokens": 24}
LENGTHS = (1, 3, 30, 70, 45)


def opened(key: str, folder: Path, batch: int, **options: Any) -> LanguageModel:
    model = LanguageModel(require(key), folder, batch=batch, **({"key_bits": 32, "value_bits": 32} | SHAPE | options))
    try:
        model.load()
    except BaseException:
        model.close()
        raise
    return model


def expected_tokens(model: Any, prompt: np.ndarray, count: int) -> list[int]:
    import torch

    with torch.no_grad():
        made = model.generate(
            torch.from_numpy(prompt)[None], max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return made[0, len(prompt) :].tolist()


def assert_greedy(model: Any, prompt: np.ndarray, found: list[int], count: int, error: float = 2e-3) -> None:
    """Each of ``count`` tokens has transformers' greatest score after those before it, or one that is as great up to rounding."""
    assert len(found) == count
    scores = logits(model, np.concatenate([prompt, found[:-1]]).astype(np.int64))[len(prompt) - 1 :]
    assert (scores.max(-1) - scores[np.arange(count), found]).max() < error * np.abs(scores).max()


def by_sequence(model: LanguageModel, prompts: list[np.ndarray], **options: Any) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    for token in model.generate(prompts, stop=(), **options):
        found[token.sequence].append(token.id)
    return found


@pytest.mark.parametrize(
    ("key", "subgroups", "bits", "columns"),
    [("firefox", False, bits, 211) for bits in (2, 3, 4, 8)] + [("chromium", True, 4, 204), ("chromium", False, 3, 204)],
)
def test_a_few_vectors_through_a_quantised_matrix(page_of: Any, key: str, subgroups: bool, bits: int, columns: int):
    """The product of the dequantised matrix with each vector, biases and what was there before added; 1, 5 and 8 vectors."""
    rng = np.random.default_rng(1)
    matrix, bias = random_matrix(0, 37, columns, bits, 32), rng.standard_normal(37).astype(np.float32)
    for vectors in (1, 5, 8) if key == "firefox" and bits == 4 else (3,):
        x, old = (rng.standard_normal((vectors, n)).astype(np.float32) for n in (columns, 37))
        constants = {
            **layout(bits, columns, 32),
            **reduction(subgroups, vectors),
            **{"VECTORS": vectors, "LANES": 32, "ROWS": 2, "MATRIX_ROWS": 37, "ALL_ROWS": 37},
            **{"QUADS_OF_X": int(columns % 4 == 0), "RESIDUAL": 1, "HAS_BIAS": 1},
        }
        tensors = {**buffers(matrix, bias), "0.2": x, "0.4": old.copy()}
        groups = (-(-37 // (2 * WORKGROUP // 32)),)
        found = run_kernel(page_of(key), "matvec_batch", constants, tensors, {"0.4": np.float32}, groups, subgroups)["0.4"]
        assert worst(found.reshape(vectors, 37), old + x @ matrix.dequantize().T + bias) < 1e-5


@pytest.mark.parametrize(
    ("key", "name", "form"),
    [
        ("chromium", "llama", {"bits": 4}),
        ("firefox", "qwen2", {"bits": 2, "budget": 4.5}),
        ("firefox", "mistral", {"bits": None}),
    ],
)
def test_the_last_sequences_logits_are_those_of_transformers(tmp_path: Path, key: str, name: str, form: dict[str, Any]):
    """By the kernels of prompts and of steps, within 1e-3, with and without biases, a window and layers of different widths."""
    ids = some_ids(70)
    expected = logits(save(build(name), tmp_path / "model", **form), ids)
    with opened(key, tmp_path / "model", 3) as model:
        for path in ("prefill", "decode"):
            assert worst(model.logits(ids, path=path), expected) < 1e-3


@pytest.mark.parametrize(("key", "batch"), [("firefox", 1), ("firefox", 2), ("firefox", 5), ("chromium", 2)])
def test_prompts_of_different_lengths(tmp_path: Path, key: str, batch: int):
    """Five prompts in a batch of 1, 2 and 5: each one's greedy tokens are transformers'; those that wait join when others have left."""
    torch_model = save(build("llama"), tmp_path / "model", 4)
    prompts = [some_ids(length, seed=length) for length in LENGTHS]
    with opened(key, tmp_path / "model", batch) as model:
        found = by_sequence(model, prompts, max_new_tokens=10)
        for prompt, tokens in zip(prompts, found, strict=True):
            assert_greedy(torch_model, prompt, tokens, 10)
        assert model.finish_reasons == ["length"] * 5


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LanguageModel, Any]]:
    """A loaded model of two sequences with a quantised cache that folds, and transformers' with the same weights."""
    folder = tmp_path_factory.mktemp("pair") / "model"
    torch_model = save(build("qwen2"), folder, None)
    with opened("firefox", folder, 2, key_bits=8, value_bits=8, recent_tokens=32) as model:
        yield model, torch_model


def test_each_cache_folds_for_itself(pair: tuple[LanguageModel, Any]):
    """Prompts of 40 and 70 tokens, whose groups are full at different steps: the tokens of the NumPy decoder with such a cache."""
    model, torch_model = pair
    model.truncate(0)
    reference = Reference(torch_model.config, weights(torch_model), np.array(model.files.decoder.inverse_frequencies))
    prompts = [some_ids(40, seed=1), some_ids(70, seed=2)]

    def expected(prompt: np.ndarray) -> list[int]:
        known = list(prompt)
        for _ in range(30):
            # The engine computes all of a prompt but its last token in chunks of 24.
            edges = [*range(0, len(prompt) - 1, 24), *range(len(prompt) - 1, len(known))]
            known.append(int(reference._logits(np.array(known), edges, 8, 8, 32)[-1].argmax()))
        return known[len(prompt) :]

    assert by_sequence(model, prompts, max_new_tokens=30) == [expected(prompt) for prompt in prompts]


def test_a_seed_decides_whatever_runs_beside(pair: tuple[LanguageModel, Any]):
    """Sequences with samplings of their own: alone, together and in the other order they have the same tokens, and log-probabilities."""
    model, _ = pair
    prompts = [some_ids(20, seed=3), some_ids(33, seed=4)]
    samplings = [Sampling(temperature=1.5, seed=1, logprobs=True), Sampling(temperature=0.8, top_k=5, seed=2)]
    alone = []
    for prompt, sampling in zip(prompts, samplings, strict=True):
        model.truncate(0)
        alone.append([token.id for token in model.generate(prompt, max_new_tokens=12, stop=(), sampling=sampling)])
    model.truncate(0)
    assert by_sequence(model, prompts, max_new_tokens=12, sampling=samplings) == alone
    model.truncate(0)
    assert by_sequence(model, prompts[::-1], max_new_tokens=12, sampling=samplings[::-1]) == alone[::-1]
    with pytest.raises(UserError, match="2 prompts need one sampling for all or one each, not 3"):
        model.generate(prompts, sampling=[*samplings, Sampling()])


def test_joining_leaving_and_cancelling(pair: tuple[LanguageModel, Any]):
    """While one answer runs another joins, is cancelled after its first token, and a third takes its place: none disturbs the first."""
    model, torch_model = pair
    model.truncate(0)
    prompts = [some_ids(20, seed=5), some_ids(50, seed=6), some_ids(9, seed=7)]
    long = model.start(prompts[0], max_new_tokens=60, stop=())
    first = [next(long).id for _ in range(5)]
    second = model.start(prompts[1], max_new_tokens=100, stop=())
    next(second)
    second.cancel()
    assert second.finish_reason == "cancelled"
    third = model.start(prompts[2], max_new_tokens=6, stop=())  # LaunchError were its place not free
    short = [token.id for token in third]
    assert_greedy(torch_model, prompts[2], short, 6, 1e-2)  # the cache is float16 until it folds
    assert third.finish_reason == "length"
    whole = [*first, *(token.id for token in long)]
    assert len(whole) == 60
    assert_greedy(torch_model, prompts[0], whole[:40], 40, 1e-2)  # as far as no group of it was quantised
    again = model.start([*prompts[2], *short[:3]], max_new_tokens=1, stop=())
    assert [token.id for token in again] == [short[3]]
    assert again.reused_tokens == len(prompts[2]) + 2  # of what the third left: all but the last, whose logits are wanted


def test_threads_read_their_own_answers(pair: tuple[LanguageModel, Any]):
    """Two threads, four prompts: each hears its own tokens whichever of them fetches, and stop tokens end one and not the other."""
    model, torch_model = pair
    model.truncate(0)
    prompts = [some_ids(10 + number, seed=8 + number) for number in range(4)]
    expected = [expected_tokens(torch_model, prompt, 8) for prompt in prompts]
    found: dict[int, list[int]] = {}

    def work(numbers: tuple[int, ...]) -> None:
        for number in numbers:
            end = expected[number][4] if number == 1 else -1
            found[number] = [token.id for token in model.start(prompts[number], max_new_tokens=8, stop=(end,))]

    threads = [threading.Thread(target=work, args=(numbers,)) for numbers in ((0, 1), (2, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    expected[1] = expected[1][: expected[1].index(expected[1][4]) + 1]
    assert found[1] == expected[1]
    for number in (0, 2, 3):
        assert_greedy(torch_model, prompts[number], found[number], 8, 1e-2)


def test_a_fetch_that_fails_wakes_who_waits():
    """The thread that fetched meets the defect; the one that waited for it fetches itself, and has its tokens."""
    waits, done = threading.Event(), threading.Event()

    def ask(message: Any, kind: Any, phase: str) -> Any:
        if isinstance(message, protocol.GenerateTokens):
            return [protocol.Facts(facts={"sequence": 1, "reused_tokens": 0, "began_ns": 0})]
        if not waits.is_set():
            waiter.start()
            assert waits.wait(60)  # it holds the lock from here until it waits
            raise ZeroDivisionError
        return [protocol.BatchTokens(parts=(SequenceTokens(1, (7,), (5,), (), "length", ""),))]

    def wait() -> None:
        def ready() -> bool:
            waits.set()
            return answer.ready

        batch.wait(ready)
        done.set()

    batch = Batch(ask, 2)
    answer = batch.begin(protocol.GenerateTokens(prompt=(1,), max_new_tokens=1, sampling=_sampling(Sampling()), stop=()))
    waiter = threading.Thread(target=wait, daemon=True)
    with pytest.raises(ZeroDivisionError):
        batch.wait(lambda: False)
    assert done.wait(60)
    assert [token.id for token in answer] == [7]


def test_what_a_batch_cannot_be(tmp_path: Path):
    """A size that there is not, int8 activations, and an answer beside others where one runs at a time: a sentence each."""
    save(build("qwen2"), tmp_path / "model", None)
    with pytest.raises(UserError, match="batch must be from 1 to 8 sequences, not 9"):
        LanguageModel("firefox", tmp_path / "model", batch=9)
    with pytest.raises(UserError, match="A batch of sequences has float activations, not int8"):
        LanguageModel("firefox", tmp_path / "model", batch=2, activations="int8")
