"""The predictor in a world of known law, in its regimes, and what it says of what it does not know."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import ceilings, device, peak_bytes, world

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import count, describe
from ipfs_accelerate_py.predict import Predictor
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.predict.evaluation import left_out
from ipfs_accelerate_py.predict.fitted import Fitted, shipped
from ipfs_accelerate_py.predict.observations import drop_disturbed
from ipfs_accelerate_py.predict.training import train


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """Trained on four devices and seven models, and knowing the probe of a fifth device."""
    evidence = world()
    evidence.probes[device(9).text] = ceilings(2.5)
    return train(evidence)


def test_left_out_errors_are_near_the_noise_in_a_world_of_known_law() -> None:
    """With 3 % of noise: cells, models and probed devices that were left out are predicted within a few percent, and covered."""
    errors = left_out(world())
    for regime, limit in (("interpolated", 6), ("new model", 8), ("new device", 12)):
        percent = 100 * np.mean([abs(math.expm1(-error)) for _, error in errors[regime]])
        assert len(errors[regime]) >= 60 and percent < limit, regime


def test_the_widths_grow_as_less_is_known(fitted: Fitted) -> None:
    """And each regime's interval covers about what it says of groups that were left out."""
    regimes = ("interpolated", "new model", "new device", "datasheet")
    halves = [fitted.widths[regime].half_width for regime in regimes]
    assert halves == sorted(halves)
    for regime in regimes[:3]:
        assert fitted.widths[regime].error["coverage"] >= 0.7, regime


@pytest.mark.parametrize(
    ("model", "machine", "length", "regime"),
    [
        ("bert small", "0" * 16, 128, "measured"),
        ("bert small", "0" * 16, 200, "interpolated"),
        ("wav2vec2 base", "0" * 16, None, "new model"),
        ("bert small", f"{9:016x}", 128, "new device"),
    ],
)
def test_the_regime_says_how_it_is_known(fitted: Fitted, model: str, machine: str, length: int | None, regime: str) -> None:
    """From the very cell to a device that was only probed; only the cell itself is called measured."""
    found = Predictor(fitted).predict(describe(*model.split()), platform="cpu", machine=machine, sequence_length=length)
    assert found.regime == regime
    assert found.provenance == ("measured" if regime == "measured" else "predicted")
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    assert found.throughput_per_s.value == pytest.approx(1000 / found.latency_ms.value)
    assert found.energy_j is None and found.energy_reason


def test_a_measured_cell_is_answered_by_its_launches(fitted: Fitted) -> None:
    """The median itself, not the model of it."""
    evidence = world()
    cell = next(each for each in evidence.observations if each.model == "bert base" and each.sequence_length == 128)
    found = Predictor(fitted).predict(describe("bert", "base"), platform="cpu", machine=cell.key.machine, sequence_length=128)
    assert found.latency_ms.value == pytest.approx(cell.ms["total"], rel=1e-5)


def test_a_new_device_is_predicted_from_its_probe(fitted: Fitted) -> None:
    """2.5 times as fast a device, of which only the probe is known: within the interval, and within 20 % of the law."""
    found = Predictor(fitted).predict(describe("vit", "base"), platform="cpu", machine=f"{9:016x}")
    from ipfs_accelerate_py.predict.fitting import Costs, terms

    law = 1000 * terms(count(describe("vit", "base")), ceilings(2.5), "onnxruntime", "float32")["total"].seconds(
        Costs.plain(1.5, 1.5, 2e-6, 1e-4)
    )
    assert found.latency_ms.value == pytest.approx(law, rel=0.2)
    assert found.latency_ms.low < law < found.latency_ms.high


def test_a_generation_has_a_first_token_and_further_ones(fitted: Fitted) -> None:
    """Whose sum is the whole."""
    found = Predictor(fitted).predict(describe("qwen2"), platform="cpu", machine="0" * 16, new_tokens=10)
    assert found.time_to_first_token_ms and found.time_per_output_token_ms
    whole = found.time_to_first_token_ms.value + 9 * found.time_per_output_token_ms.value
    assert whole == pytest.approx(found.latency_ms.value, rel=0.01)
    assert Predictor(fitted).predict(describe("vit"), platform="cpu").time_to_first_token_ms is None


def test_another_precision_and_training_widen_the_interval_and_say_so(fitted: Fitted) -> None:
    """Nothing was measured at int8, and no training."""
    predictor = Predictor(fitted)
    plain = predictor.predict(describe("clap"), platform="cpu").latency_ms
    for options, sentence in (
        ({"precision": "int8"}, "Nothing was measured there at int8"),
        ({"mode": "training"}, "No training was measured"),
    ):
        found = predictor.predict(describe("clap"), platform="cpu", **options)  # type: ignore[arg-type]
        assert any(sentence in reason for reason in found.reasons)
        assert found.latency_ms.high / found.latency_ms.value > plain.high / plain.value


def test_operators_that_are_not_known_widen_and_are_named(fitted: Fitted, tmp_path: Path) -> None:
    """A graph with a Frobnicate."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [256, 256], [0.0] * 65536)

    def saved(operator: str, domain: str) -> Path:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node(operator, ["y"], ["z"], domain=domain)]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 256]) for name in ("x", "z")]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / f"{operator}.onnx")
        return tmp_path / f"{operator}.onnx"

    predictor = Predictor(fitted)
    known = predictor.predict(describe(saved("Relu", "")), platform="cpu")
    unknown = predictor.predict(describe(saved("Frobnicate", "example")), platform="cpu")
    assert any("Frobnicate" in reason for reason in unknown.reasons)
    assert unknown.latency_ms.high / unknown.latency_ms.value > known.latency_ms.high / known.latency_ms.value


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"platform": "gpu"}, "Unknown platform 'gpu'"),
        ({"platform": "mps"}, "Nothing is known of mps: neither a launch nor a probe. Known: cpu onnxruntime"),
        ({"platform": "cpu", "machine": "Voodoo 2"}, "Nothing is known of the machine 'Voodoo 2'"),
        ({"platform": "cpu", "machine": "NVIDIA A100"}, "is a gpu, which the platform cpu does not run on"),
        ({"platform": "cpu", "batch_size": 0}, "batch size must be a whole number of at least 1, not 0"),
        ({"platform": "cpu", "precision": "float12"}, "Unknown precision 'float12'"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_remedy(fitted: Fitted, options: dict[str, object], sentence: str) -> None:
    """One sentence each."""
    with pytest.raises(UserError, match=sentence):
        Predictor(fitted).predict(describe("bert"), **options)  # type: ignore[arg-type]


def test_a_machine_is_named_as_people_know_it(fitted: Fitted) -> None:
    """By words of its processor's name or the beginning of its hash, alike; the answer names it."""
    by_name, by_hash = (
        Predictor(fitted).predict(describe("bert"), platform="cpu", machine=name) for name in ("Processor 2", f"{2:016x}")
    )
    assert by_name == by_hash
    assert by_name.machine == f"{2:016x}" and by_name.machine_name == "processor 2, 4 CPUs"


@pytest.mark.parametrize(("model", "length", "mode"), [("bert", 513, "inference"), ("clip", 78, "training")])
def test_more_tokens_than_the_model_takes_are_refused(fitted: Fitted, model: str, length: int, mode: str) -> None:
    """As ``bench`` refuses them; one fewer is answered."""
    with pytest.raises(UserError, match=f"takes at most {length - 1} tokens, and {length} input tokens were asked for"):
        Predictor(fitted).predict(describe(model), platform="cpu", sequence_length=length, mode=mode)
    assert (
        Predictor(fitted).predict(describe(model), platform="cpu", sequence_length=length - 1, mode=mode).latency_ms.value > 0
    )


def test_a_datasheet_is_marked_and_named(fitted: Fitted) -> None:
    """With its page, and as a regime of its own."""
    found = Predictor(fitted).predict(describe("llama-7b"), platform="cuda", machine="NVIDIA A100", precision="float16")
    assert found.regime == "datasheet" and "https://www.nvidia.com" in found.reasons[0]
    assert found.memory_bytes.low >= 0.5 * 2 * 6_738_415_616


def test_a_fitted_predictor_survives_its_file(fitted: Fitted) -> None:
    """To the six digits that are kept."""
    again = Fitted.from_json(fitted.to_json())
    first, second = (Predictor(each).predict(describe("t5", "base"), platform="cpu") for each in (fitted, again))
    assert second.latency_ms.value == pytest.approx(first.latency_ms.value, rel=1e-4)
    assert again.version == fitted.version


def test_a_predictor_file_of_another_format_is_refused(fitted: Fitted) -> None:
    """With the command that makes a new one."""
    raw = json.loads(fitted.to_json()) | {"format": 0}
    with pytest.raises(UserError, match="predict --train"):
        Fitted.from_json(json.dumps(raw))


def test_memory_is_the_formula_and_what_was_measured_beyond_it(fitted: Fitted) -> None:
    """For a model that was left out, within 10 % of the made-up world's law."""
    description = describe("wav2vec2", "base")
    found = Predictor(fitted).predict(description, platform="cpu").memory_bytes
    assert found.value == pytest.approx(peak_bytes(count(description)), rel=0.1)
    assert found.low < peak_bytes(count(description)) < found.high


def test_nominal_ceilings_do_when_nothing_was_probed() -> None:
    """Launches alone correct them: a left-out model is still predicted, less well."""
    evidence = world(devices=2, probed=False)
    errors = [abs(error) for _, error in left_out(evidence)["new model"]]
    assert np.median(errors) < 0.4
    assert train(evidence).widths["new device"].n == 0


def test_the_shipped_predictor_answers_without_heavy_imports() -> None:
    """In a fresh process: neither torch nor sklearn, nor the store's engine."""
    code = (
        "import sys; from ipfs_accelerate_py.predict import Predictor; from ipfs_accelerate_py.graph import describe;"
        "print(Predictor.from_stores().predict(describe('bert-base-uncased'), platform='cpu').regime);"
        "print(sorted({'torch', 'transformers', 'sklearn', 'duckdb', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[1] == "[]"


def test_the_shipped_predictor_is_of_the_shipped_measurements() -> None:
    """Training on data/reference gives the version and the numbers that lie in the package."""
    from ipfs_accelerate_py.predict.cache import train_now

    trained, kept = train_now([], reference=True), shipped()
    assert trained.version == kept.version
    for regime, width in kept.widths.items():
        assert trained.widths[regime].half_width == pytest.approx(width.half_width, rel=1e-3), regime


def test_candidates_say_how_they_are_known(fitted: Fitted) -> None:
    """Four measured devices, and one that was probed."""
    found = Predictor(fitted).candidates()
    assert sorted(each.known for each in found) == ["measured"] * 4 + ["probed"]
    assert {each.platform for each in found} == {"cpu"}


def test_a_probe_changes_the_start_of_a_fit() -> None:
    """The cost of a kernel and of an execution are the probe's where the launches do not say otherwise."""
    from ipfs_accelerate_py.predict.kinds import DEFAULTS, prior_of

    prior = DEFAULTS["onnxruntime@cpu"]
    probed = Ceilings("probe", "x", {"float32": ((1.0, 1e9),)}, ((1.0, 1e9),), 7e-6, 3e-3)
    found = prior_of({}, "onnxruntime@cpu", probed)
    assert (found.kernel_s, found.execution_s) == (7e-6, 3e-3)
    assert prior_of({}, "onnxruntime@cpu", replace(probed, source="datasheet")) == prior


def test_a_probe_that_ran_beside_other_work_is_left_out_and_counted() -> None:
    """Its ceilings are a tenth of what launches on the device reached; the sound probes of the others stay."""
    evidence = world(devices=2)
    sound, disturbed = device(0).text, device(1).text
    evidence.probes[disturbed] = ceilings(0.2)
    drop_disturbed(evidence)
    assert set(evidence.probes) == {sound}
    assert any("it ran beside other work" in warning for warning in evidence.warnings)


def test_another_probe_makes_another_version() -> None:
    """Equal launches with another probe are another predictor."""
    first, second = world(devices=2), world(devices=2)
    second.probes[device(9).text] = ceilings(2.5)
    assert train(first).version == train(world(devices=2)).version != train(second).version
