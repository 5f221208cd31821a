"""What every platform promises, checked on each case and model class that this machine can run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from platform_cases import CASES, Case, expected_failure

from ipfs_accelerate_py.platforms.registry import platform, platforms
from ipfs_accelerate_py.spec import BROWSER_PLATFORMS, Workload

# WGSL lets sin and cos be off by 2^-11, which SwiftShader uses up (https://www.w3.org/TR/WGSL/#floating-point-accuracy).
LARGEST_ERROR = {"webgpu": 1e-3}
LEAST_COSINE = {"float16": 0.999, "int8": 0.95}


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(values - reference).max() / np.abs(reference).max())


def test_outputs_agree_with_the_reference(outcome, case):
    """Float32 outputs have the reference's names and shapes, its values within 1e-4 (WebGPU 1e-3), and exactly its tokens."""
    assert outcome.outputs.keys() == outcome.reference.keys()
    for name, reference in outcome.reference.items():
        values = outcome.outputs[name]
        assert values.shape == reference.shape
        if np.issubdtype(reference.dtype, np.integer):
            assert values.tolist() == reference.tolist()
        else:
            assert values.dtype == np.float32
            assert relative_error(values, reference) < LARGEST_ERROR.get(case.platform, 1e-4), name


def test_iterations_do_not_affect_each_other(outcome):
    """A second iteration gives what the first gave; a session with its own clock times as many as it was asked for."""
    if outcome.again is None:
        assert len(outcome.samples) == 2
        assert all(sample.total_ns > 0 for sample in outcome.samples)
    else:
        for name, values in outcome.outputs.items():
            np.testing.assert_allclose(outcome.again[name], values, rtol=1e-5, atol=1e-5)


def test_every_token_is_announced(outcome):
    """Generation announces each new token once, a single pass none."""
    assert outcome.tokens == (outcome.workload.new_tokens or 0)
    for sample in outcome.samples:
        assert len(sample.token_ns) == outcome.tokens
        assert list(sample.token_ns) == sorted(sample.token_ns)


@pytest.mark.notyet(
    "webgpu", models=["bert", "whisper", "llama"], reason="onnxruntime-web 1.30 leaves shapes and 64-bit integers to the CPU"
)
def test_session_says_what_ran(outcome):
    """Facts are JSON, weights have a size, and where nodes are counted they all ran on the provider that was asked for."""
    assert json.loads(json.dumps(outcome.facts)) == outcome.facts
    assert outcome.facts
    assert outcome.memory.weights_bytes is not None
    assert outcome.memory.weights_bytes > 0
    if outcome.coverage is not None:
        assert sum(outcome.coverage.nodes.values()) > 10
        assert outcome.coverage.share == 1.0


@pytest.mark.parametrize(
    ("narrow_class", "precision"),
    [
        ("bert", "float16"),
        ("llama", "float16"),
        ("bert", "int8"),
        ("llama", "int8"),
    ],
)
def test_reduced_precision_stays_close(run_case, case, narrow_class, precision):
    """At float16 and int8 the outputs point where the reference points, and differ from it: the precision is real."""
    outcome = run_case(case, narrow_class, precision)
    name = "logits" if "logits" in outcome.reference else next(iter(outcome.reference))
    values, reference = outcome.outputs[name].astype(np.float64).ravel(), outcome.reference[name].astype(np.float64).ravel()
    cosine = values @ reference / np.linalg.norm(values) / np.linalg.norm(reference)
    assert cosine > LEAST_COSINE[precision]
    assert relative_error(values, reference) > 1e-5


def test_unknown_engine_is_unsupported(case):
    """A platform answers for an engine it lacks with a sentence that names the engine."""
    work = Workload(model_class="bert", size="tiny", weights="synthetic", origin="synthetic:0", task="sentence-embedding")
    assert "abacus" in platform(case.platform).unsupported(work, "abacus")


def test_every_native_platform_has_a_case():
    """No platform escapes the suite."""
    assert {case.platform for case in CASES} >= platforms().keys() - set(BROWSER_PLATFORMS)


def test_marks_are_strict():
    """A mark for this case and model makes a strict expected failure with its reason; for another it does nothing."""
    mark = pytest.mark.notyet("openvino", models=["vit"], reason="no such operator").mark
    failure = expected_failure([mark], Case("openvino", "openvino"), "vit")
    assert failure is not None
    assert failure.kwargs["strict"]
    assert "no such operator" in failure.kwargs["reason"]
    assert expected_failure([mark], Case("openvino", "openvino"), "bert") is None
    assert expected_failure([mark], Case("cpu", "torch"), "vit") is None


@pytest.mark.parametrize(
    "mark",
    [
        pytest.mark.notimpl("openvino").mark,
        pytest.mark.never("opnvino", reason="a slip").mark,
        pytest.mark.never(reason="names nothing").mark,
        pytest.mark.notyet("cpu", models=["brt"], reason="a slip").mark,
    ],
    ids=["without reason", "unknown platform", "no platform", "unknown model"],
)
def test_marks_reject_slips(mark):
    """A mark without a reason or with an unknown name stops the run instead of hiding a failure."""
    with pytest.raises(pytest.UsageError):
        expected_failure([mark], Case("cpu", "torch"), "bert")
