"""What every platform promises, checked on each case and model class that this machine can run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from platform_cases import CASES, Case, expected_failure

from ipfs_accelerate_py.measure.accuracy import check
from ipfs_accelerate_py.platforms.registry import platform, platforms
from ipfs_accelerate_py.spec import BROWSER_PLATFORMS, Workload

# WGSL lets sin and cos be off by 2^-11, which SwiftShader uses up (https://www.w3.org/TR/WGSL/#floating-point-accuracy).
LARGEST_ERROR = {"webgpu": 1e-3}


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
        *((name, "float16") for name in ("bert", "t5", "detr", "wav2vec2", "llava")),  # one of each family
        *((name, "bfloat16") for name in ("bert", "llama")),
        *((name, "int8") for name in ("bert", "llama")),
        *((name, "int4") for name in ("clip", "llama")),
    ],
)
def test_reduced_precision_stays_close(run_case, case, narrow_class, precision):
    """Below float32 the outputs pass the precision's own rule, and differ from the reference: the precision is real."""
    outcome = run_case(case, narrow_class, precision)
    found = check(outcome.outputs, outcome.reference, precision, outcome.workload.task)
    assert found.passed, found.rule
    assert found.relative_error > 1e-5


@pytest.mark.parametrize(
    ("place", "precision", "words"),
    [
        *((case, "bfloat16", "bfloat16 needs torch") for case in CASES if case.engine != "torch"),
        *((case, "int4", "needs onnxruntime") for case in CASES if case.engine == "torch"),
        (Case("cpu", "onnxruntime"), "float16", "compute in float32"),
        (Case("wasm", "onnxruntime-web"), "float16", "compute in float32"),
        (Case("webgpu", "onnxruntime-web"), "int8", "on the CPU; int4 and float16 run there"),
        (Case("webnn", "onnxruntime-web"), "int4", "no uint4"),
        (Case("webnn", "onnxruntime-web"), "int8", "no integer matmul"),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else None,
)
def test_precisions_that_cannot_run_say_why(place, precision, words, workload_of, monkeypatch):
    """A platform answers with a sentence, and the same work at float32 runs there."""
    monkeypatch.setattr("sys.platform", "linux")
    answer = platform(place.platform).unsupported(workload_of("bert", precision=precision), place.engine)
    assert words in answer and answer.endswith(".")
    assert platform(place.platform).unsupported(workload_of("bert"), place.engine) is None


def test_webnn_elsewhere_may_have_low_precisions(workload_of, monkeypatch):
    """Other systems have other WebNN backends: what Linux' one lacks is not said of them."""
    monkeypatch.setattr("sys.platform", "win32")
    assert platform("webnn").unsupported(workload_of("bert", precision="int4"), "onnxruntime-web") is None


def test_exported_graphs_do_not_train(case, workload_of):
    """Training is torch's: every other engine says so."""
    work = replace(workload_of("bert"), mode="training", batch_size=2)
    answer = platform(case.platform).unsupported(work, case.engine)
    assert answer is None if case.engine == "torch" else "training needs torch" in answer


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
