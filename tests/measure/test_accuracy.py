"""The output check: what passes, what fails, and that it says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipfs_accelerate_py.measure.accuracy import RULES, check

EMBEDDING = {"embeddings": np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)}


def noisy(reference, noise, seed=1):
    """The embeddings with Gaussian noise of this share of their magnitude."""
    values = reference["embeddings"]
    return {"embeddings": values + noise * np.random.default_rng(seed).normal(size=values.shape).astype(np.float32)}


@pytest.mark.parametrize("precision", RULES)
def test_the_reference_itself_passes_at_every_precision(precision):
    """Equal outputs have a cosine of 1, no error, and pass."""
    accuracy = check(EMBEDDING, EMBEDDING, precision, "sentence-embedding")
    assert accuracy.passed and accuracy.cosine == pytest.approx(1) and accuracy.relative_error == 0
    assert accuracy.top1_agreement is None


@pytest.mark.parametrize(
    ("noise", "passing"),
    [
        (1e-5, {"float32", "float16", "bfloat16", "int8", "int4"}),
        (0.01, {"float16", "bfloat16", "int8", "int4"}),
        (0.06, {"bfloat16", "int8", "int4"}),
        (0.2, {"int8", "int4"}),
        (0.4, {"int4"}),
        (1.0, set()),
    ],
)
def test_noise_passes_down_to_the_precision_it_belongs_to(noise, passing):
    """1e-5 is rounding of float32, 1 % of float16, 40 % of int4; as much noise as signal passes nowhere, and the rule says why."""
    results = {precision: check(noisy(EMBEDDING, noise), EMBEDDING, precision, "sentence-embedding") for precision in RULES}
    assert {precision for precision, accuracy in results.items() if accuracy.passed} == passing
    assert all(("failed" in accuracy.rule) != accuracy.passed for accuracy in results.values())


@given(st.integers(0, 3))
def test_one_wrong_item_of_a_batch_is_not_averaged_away(item):
    """The cosine is the lowest over the batch: one item of the others' signs fails."""
    outputs = {"embeddings": EMBEDDING["embeddings"].copy()}
    outputs["embeddings"][item] *= -1
    accuracy = check(outputs, EMBEDDING, "int8", "sentence-embedding")
    assert not accuracy.passed and accuracy.cosine == pytest.approx(-1)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "'embeddings' is missing"),
        ({"embeddings": EMBEDDING["embeddings"][:2]}, "shape"),
        ({"embeddings": np.full((4, 64), np.nan)}, "not finite"),
        ({"embeddings": np.full((4, 64), np.inf)}, "not finite"),
        ({"embeddings": np.ones((4, 64), np.int64)}, "int64"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(outputs, words):
    """Missing, misshapen, not finite or of another kind: no figure is made up."""
    accuracy = check(outputs, EMBEDDING, "int8", "sentence-embedding")
    assert not accuracy.passed and words in accuracy.rule
    assert np.isnan(accuracy.cosine) and np.isnan(accuracy.relative_error) and accuracy.top1_agreement is None


def test_zeros_are_no_answer_and_no_reference():
    """An output of zeros has a cosine of 0; a reference of zeros cannot judge."""
    zeros = {"embeddings": np.zeros((4, 64), np.float32)}
    assert check(zeros, EMBEDDING, "int8", "sentence-embedding").cosine == 0
    assert "nothing but zeros" in check(zeros, zeros, "int8", "sentence-embedding").rule


def test_a_class_may_differ_only_at_a_tie():
    """Two classes within the tolerance may change places in int8; the agreement is stored all the same. A third may not."""
    reference = {"logits": np.array([[1.0, 0.99, -4.0, 4.0, 3.98]])}
    tied = {"logits": np.array([[1.0, 0.99, -4.0, 3.97, 4.0]])}
    accuracy = check(tied, reference, "int8", "image-classification")
    assert accuracy.passed and accuracy.top1_agreement == 0
    wrong = {"logits": np.array([[2.0, 0.99, -4.0, 1.9, 1.9]])}
    assert "1 wrong choices" in check(wrong, reference, "int8", "image-classification").rule


def generation(tokens):
    """Outputs of a generation whose first scores prefer token 3, with token 2 tied to it in float16."""
    return {"token_ids": np.array([tokens]), "logits": np.array([[0.0, 1.0, 1.99, 2.0]])}


def test_generated_tokens_are_all_compared_in_float32():
    """One different token of eight fails float32, and passes float16, where it may follow from a tie."""
    reference, other = generation([3, 1, 1, 1, 1, 1, 1, 1]), generation([3, 1, 1, 1, 1, 1, 1, 0])
    assert check(reference, reference, "float32", "text-generation").top1_agreement == 1
    float32 = check(other, reference, "float32", "text-generation")
    assert not float32.passed and float32.top1_agreement == 7 / 8 and "equal tokens" in float32.rule
    assert check(other, reference, "float16", "text-generation").passed


def test_a_broken_cache_fails_float16_and_a_wrong_first_token_fails_all():
    """Right once of eight is below a quarter; a first token that is no tie is wrong, as is one outside the vocabulary."""
    reference = generation([3, 1, 1, 1, 1, 1, 1, 1])
    assert not check(generation([3, 0, 0, 0, 0, 0, 0, 0]), reference, "float16", "text-generation").passed
    assert check(generation([2, 1, 1, 1, 1, 1, 1, 1]), reference, "float16", "text-generation").passed
    for first in (0, 4, -1):
        wrong = check(generation([first, 1, 1, 1, 1, 1, 1, 1]), reference, "int8", "text-generation")
        assert not wrong.passed and "1 wrong choices" in wrong.rule


@pytest.mark.parametrize("task", ["object-detection", "automatic-speech-recognition"])
def test_each_box_and_each_frame_is_a_choice(task):
    """Logits [batch, boxes or frames, classes]: another class at one of them is wrong though the cosine allows it; a tie is not."""
    scores = np.random.default_rng(2).normal(size=(2, 50, 8))
    scores[1, 7] = [0, 0, 0, 0, 0, 0, 0, 4.5]
    scores[1, 8] = [0, 0, 0, 0, 0, 0, 4.5, 4.49]
    reference = {"logits": scores}
    tied = {"logits": scores.copy()}
    tied["logits"][1, 8] = [0, 0, 0, 0, 0, 0, 4.49, 4.5]
    accuracy = check(tied, reference, "int8", task)
    assert accuracy.passed and accuracy.top1_agreement == 0.99
    wrong = {"logits": scores.copy()}
    wrong["logits"][1, 7] = [1.3, 0, 0, 0, 0, 0, 0, 1.2]
    accuracy = check(wrong, reference, "int4", task)
    assert accuracy.cosine > 0.85 and "1 wrong choices" in accuracy.rule
    assert check(wrong, reference, "int4", "feature-extraction").top1_agreement is None


@pytest.mark.parametrize("name", ["text_embeddings", "image_embeddings"])
def test_every_output_and_every_item_counts(name):
    """With several outputs the lowest cosine is that of the worst item of the worst output."""
    reference = {key: EMBEDDING["embeddings"] for key in ("text_embeddings", "image_embeddings")}
    outputs = {key: array.copy() for key, array in reference.items()}
    outputs[name][2] = np.roll(outputs[name][2], 1)
    accuracy = check(outputs, reference, "int4", "image-text-embedding")
    assert not accuracy.passed and accuracy.cosine < 0.5


def test_a_reference_of_the_first_rows():
    """On request the reference may be of the first items alone: those are compared, and what is beyond them must be finite."""
    reference = {"embeddings": EMBEDDING["embeddings"][:2], "logits": np.eye(2, 5)}
    outputs = {"embeddings": EMBEDDING["embeddings"].copy(), "logits": np.eye(4, 5)}
    accuracy = check(outputs, reference, "float32", "image-classification", reference_rows=2)
    assert accuracy.passed and accuracy.cosine == pytest.approx(1) and accuracy.top1_agreement == 1
    assert "shape" in check(outputs, reference, "float32", "image-classification").rule
    assert "shape" in check(outputs, reference, "float32", "image-classification", reference_rows=3).rule
    fewer = {key: array[:1] for key, array in outputs.items()}
    assert "shape" in check(fewer, reference, "float32", "image-classification", reference_rows=2).rule
    outputs["embeddings"][0, 0] += 10
    assert not check(outputs, reference, "float32", "image-classification", reference_rows=2).passed
    outputs["embeddings"] = EMBEDDING["embeddings"].copy()
    outputs["embeddings"][3, 0] = np.nan
    assert "not finite" in check(outputs, reference, "float32", "image-classification", reference_rows=2).rule


def test_generations_of_the_first_rows():
    """Tokens of the items that the reference has are compared, those of the others are not."""
    reference = generation([3, 1, 1, 1])
    outputs = {key: np.concatenate([array, array]) for key, array in reference.items()}
    outputs["token_ids"][1] = 0
    assert check(outputs, reference, "float32", "text-generation", reference_rows=1).passed
