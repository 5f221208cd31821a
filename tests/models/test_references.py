"""References of items: shared by batches, and the same by transformers' own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ipfs_accelerate_py.models import references
from ipfs_accelerate_py.models.prepare import prepare
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.reference import forward_reference, reference_outputs
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.models.synthetic import synthetic_model

CLASSES = sorted(model_classes())
DECODERS = ("llama", "qwen2", "llava", "llava_next")


@pytest.mark.parametrize("name", CLASSES)
def test_the_first_items_are_those_of_any_larger_batch(name: str) -> None:
    """Bit for bit, and no two items are alike."""
    kind = model_classes()[name]
    config = kind.config(kind.sizes["tiny"].config)
    length = None if kind.default_sequence_length is None else 12
    large, small = (kind.inputs(config, count, length, 3) for count in (4, 2))
    for key, array in large.items():
        np.testing.assert_array_equal(array[:2], small[key])
    assert all(any((array[0] != array[row]).any() for array in large.values()) for row in (1, 2, 3))


@pytest.mark.parametrize("name", CLASSES)
def test_an_item_has_the_same_reference_in_every_batch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three items one is known already: two are computed, and all three are what a batch of three gives."""
    reference = resolve(name, "tiny", "synthetic")
    computed: list[int] = []

    def counted(graphs, new_tokens):  # type: ignore[no-untyped-def]
        first = next(iter(graphs.values()))
        computed.append(len(next(iter(first.inputs.values()))))
        return reference_outputs(graphs, new_tokens)

    monkeypatch.setattr(references, "reference_outputs", counted)
    works = [workload(reference, batch_size=size, sequence_length=16, new_tokens=4) for size in (1, 3)]
    one, three = (load_tensors(prepare(work, reference, tmp_path, exported=False) / "reference.npz") for work in works)
    assert computed == [1, 2]
    kind = model_classes()[name]
    model = synthetic_model(kind, kind.sizes["tiny"].config, 0)
    inputs = kind.inputs(model.config, 3, works[1].sequence_length, 0)
    whole = reference_outputs(kind.graphs(model, inputs, works[1].new_tokens), works[1].new_tokens)
    assert set(whole) == set(three)
    for key, expected in whole.items():
        np.testing.assert_allclose(three[key], expected, atol=2e-5)
        np.testing.assert_array_equal(three[key][:1], one[key])


@pytest.mark.parametrize("name", DECODERS)
def test_transformers_own_forward_pass_gives_the_same(name: str) -> None:
    """Tokens and logits, by its growing cache and its merging of images, of two items."""
    kind = model_classes()[name]
    model = synthetic_model(kind, kind.sizes["tiny"].config, 1)
    inputs = kind.inputs(model.config, 2, 10, 0)
    ours = reference_outputs(kind.graphs(model, inputs, 5), 5)
    theirs = forward_reference(kind, model, inputs, 5)
    np.testing.assert_array_equal(theirs["token_ids"], ours["token_ids"])
    np.testing.assert_allclose(theirs["logits"], ours["logits"], atol=1e-4)
    assert theirs["token_ids"].dtype == np.int64 and theirs["logits"].dtype == np.float32


def test_tf32_is_as_it_was_afterwards() -> None:
    """The switches of CUDA's arithmetic are set for the reference alone."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    kind = model_classes()["llama"]
    model = synthetic_model(kind, kind.sizes["tiny"].config, 1)
    forward_reference(kind, model, kind.inputs(model.config, 1, 4, 0), 1)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_another_device_goes_the_other_way_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference is kept apart from the CPU's, computed by the forward pass, and the manifest names the device."""
    reference = resolve("llama", "tiny", "synthetic")
    work = workload(reference, batch_size=2, sequence_length=8, new_tokens=3)
    plain = prepare(work, reference, tmp_path, exported=False)
    monkeypatch.setattr(references, "reference_outputs", None)  # calling it would fail
    other = prepare(work, reference, tmp_path, exported=False, device="cpu:0")  # torch's name of the only device here
    assert plain != other
    assert [Manifest.read(folder).facts["reference_device"] for folder in (plain, other)] == ["cpu", "cpu:0"]
    ours, theirs = (load_tensors(folder / "reference.npz") for folder in (plain, other))
    np.testing.assert_array_equal(ours["token_ids"], theirs["token_ids"])
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-4)
