"""Training sessions on the CPU: a step is a step, its loss and gradient are right, and what cannot train says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ipfs_accelerate_py.measure import accuracy
from ipfs_accelerate_py.models.prepare import load_model, prepare
from ipfs_accelerate_py.models.prepared import Manifest, load_tensors
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.platforms.cpu import Cpu
from ipfs_accelerate_py.platforms.openvino import OpenVino
from ipfs_accelerate_py.platforms.training import LEARNING_RATE, TorchTrainingSession

CLASSES = tuple(model_classes())


@pytest.fixture
def train(tmp_path):
    """``train(model_class, precision)``: a loaded and compiled session, its inputs and its folder."""
    sessions = []

    def open_(name, precision="float32"):
        reference = resolve(name, "tiny", "synthetic")
        work = workload(reference, batch_size=3, sequence_length=16, precision=precision, mode="training")
        folder = prepare(work, reference, tmp_path)
        inputs = load_tensors(folder / "inputs.npz")
        session = Cpu().open(work, "default", OpenOptions(folder=folder, engine="torch", inputs=inputs))
        sessions.append(session)
        session.load()
        session.compile()
        return session, inputs, folder

    threads = torch.get_num_threads()
    yield open_
    torch.set_num_threads(threads)
    for session in sessions:
        session.close()


@pytest.mark.parametrize("name", CLASSES)
def test_first_step_is_the_reference(train, name):
    """Loss and gradient norm of the first step pass the check, and the weights have moved after it."""
    session, inputs, folder = train(name)
    before = [parameter.detach().clone() for parameter in session.parameters]
    outputs = session.infer(inputs)
    assert outputs["loss"].shape == outputs["gradient_norm"].shape == (1,)
    assert outputs["gradient_norm"][0] > 0
    result = accuracy.check(outputs, load_tensors(folder / "reference.npz"), "float32", session.workload.task)
    assert result.passed, result.rule
    moved = [(old - new).abs().max().item() for old, new in zip(before, session.parameters, strict=True)]
    assert max(moved) == pytest.approx(LEARNING_RATE, rel=0.1)  # the first step of AdamW is that long, whatever the gradient


def test_steps_are_those_of_torch(train):
    """Five steps give the losses of a plain loop with torch's own AdamW."""
    session, inputs, folder = train("llama")
    losses = [session.infer(inputs)["loss"][0] for _ in range(5)]
    model = load_model(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    expected = []
    for _ in range(5):
        ids = torch.from_numpy(inputs["input_ids"])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_float32_weights(train, precision):
    """The loss is close to float32's and not equal to it; weights and their bytes are float32's."""
    session, inputs, folder = train("llama", precision)
    outputs, reference = session.infer(inputs), load_tensors(folder / "reference.npz")
    assert 0 < abs(outputs["loss"][0] / reference["loss"][0] - 1) < 0.01
    assert 0 < abs(outputs["gradient_norm"][0] / reference["gradient_norm"][0] - 1) < 0.05
    assert {parameter.dtype for parameter in session.parameters} == {torch.float32}
    assert session.memory().weights_bytes == 4 * Manifest.read(folder).parameters
    facts = session.facts()
    assert precision in facts["dtype"]
    assert facts["loss_scaling"] == (precision == "float16")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_reference_of_the_first_rows_is_checked_on_them(train, monkeypatch, precision):
    """Where the whole batch is too dear for the reference, the session gives these rows' loss beside that of its steps."""
    monkeypatch.setattr("ipfs_accelerate_py.models.reference.MOST_FLOPS", 1.0)
    session, inputs, folder = train("llama", precision)
    outputs, reference = session.infer(inputs), load_tensors(folder / "reference.npz")
    rows = Manifest.read(folder).reference_rows
    assert rows == 2
    assert set(reference) == {"first_rows_loss", "first_rows_gradient_norm"}
    assert outputs["loss"][0] != outputs["first_rows_loss"][0]
    assert accuracy.check(outputs, reference, precision, session.workload.task, rows).passed
    diverged = {**outputs, "loss": np.array([np.nan], np.float32)}  # of the whole batch, of which there is no reference
    assert not accuracy.check(diverged, reference, precision, session.workload.task, rows).passed


def test_other_engines_do_not_train():
    """One sentence each; torch says so of a class that has no loss."""
    reference = resolve("bert", "tiny", "synthetic")
    work = workload(reference, batch_size=2, mode="training")
    assert work.new_tokens is None
    assert "training" in Cpu().unsupported(work, "onnxruntime")
    assert "training" in OpenVino().unsupported(work, "openvino")
    assert Cpu().unsupported(work, "torch") is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_batch_without_a_loss_is_unsupported(name, tmp_path):
    """One item has no gradient where the loss is contrastive, and the reason names the remedy; all others train with it."""
    reference = resolve(name, "tiny", "synthetic")
    work = workload(reference, batch_size=1, sequence_length=16, mode="training")
    zero = not load_tensors(prepare(work, reference, tmp_path) / "reference.npz")["loss"].any()
    reason = Cpu().unsupported(work, "torch")
    assert zero == (reason is not None) and (not zero or "--batch-sizes of 2" in reason)


def test_running_out_of_memory_is_a_typed_failure(train, monkeypatch):
    """What CUDA raises at a batch that does not fit is stored as out of memory."""
    from ipfs_accelerate_py.errors import LaunchError

    session, inputs, _ = train("vit")
    assert isinstance(session, TorchTrainingSession)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(type(session.model_class), "loss", full)
    with pytest.raises(LaunchError) as caught:
        session.infer(inputs)
    assert caught.value.error_class == "out_of_memory"
