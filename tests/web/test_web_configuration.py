"""Each rule of the configuration: what it corrects and reports, and what it refuses."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from decoder_models import build, save

from ipfs_accelerate_py.web import configuration_rules
from ipfs_accelerate_py.web.configuration import Finding, Validation
from ipfs_accelerate_py.web.configuration_rules import validate
from ipfs_accelerate_py.web.errors import ConfigurationError
from ipfs_accelerate_py.web.web_model import WebModel


def checked(asked: dict[str, Any], name: str = "llama", platform: str = "wasm") -> Validation:
    return validate(asked, lambda config: WebModel(name, "text", size="tiny", weights="synthetic"), platform)[0]


def found(asked: dict[str, Any], rule: str, **options: str) -> Finding:
    matching = [finding for finding in checked(asked, **options).errors if finding.rule == rule]
    assert len(matching) == 1, checked(asked, **options).errors
    return matching[0]


def test_an_empty_configuration_is_valid_and_unchanged():
    """Nothing given, nothing corrected."""
    result = checked({}).to_dict()
    assert (result["valid"], result["errors"], result["auto_corrected"]) == (True, [], False)
    assert result["config"]["precision"] is None


CORRECTED: list[tuple[dict[str, Any], str, str, Any]] = [
    ({"precision": 5}, "precision_range", "precision", 8),
    ({"precision": 64}, "precision_range", "precision", 32),
    ({"precision": 2}, "precision_of_engine", "precision", 4),
    ({"precision": "3bit"}, "precision_of_engine", "precision", 4),
    ({"precision": 16}, "precision_of_engine", "precision", 32),  # no float16 arithmetic in wasm
    ({"precision": {"lm_head": 8, "rest": 4}}, "mixed_precision", "precision", 8),
    ({"batch_size": 0}, "batch_size", "batch_size", 1),
    ({"batch_size": "4"}, "batch_size", "batch_size", 4),
    ({"batch_size": 10**6}, "batch_size", "batch_size", 1024),
    ({"context_length": 1}, "context_length", "context_length", 2),
    ({"use_kv_cache": False}, "kv_cache_needed", "use_kv_cache", True),
    ({"kv_cache_bits": 2}, "kv_cache_of_engine", "kv_cache_bits", 32),
    ({"use_model_sharding": True}, "sharding_unavailable", "use_model_sharding", False),
    ({"enable_parallel_loading": "no"}, "boolean", "enable_parallel_loading", False),
    ({"workgroup_size": [32, 32, 1]}, "workgroup_limit", "workgroup_size", (256, 1, 1)),
    ({"error_recovery": "Retry"}, "recovery_mode", "error_recovery", "retry"),
    ({"threads": 0}, "threads", "threads", 1),
    ({"max_pending": 0}, "max_pending", "max_pending", 1),
    ({"max_new_tokens": -3}, "max_new_tokens", "max_new_tokens", 1),
    ({"readback": "Woken"}, "readback", "readback", "woken"),
    ({"adapter": "SOFTWARE"}, "adapter", "adapter", "software"),
    ({"weights": "Synthetic"}, "weights", "weights", "synthetic"),
]


@pytest.mark.parametrize(("asked", "rule", "key", "value"), CORRECTED)
def test_a_correction_is_made_and_reported_under_the_name_of_its_rule(asked: dict[str, Any], rule: str, key: str, value: Any):
    """The report says what the value became, and the configuration has it."""
    finding = found(asked, rule)
    assert finding.corrected_to == value
    result = checked(asked)
    if rule != "workgroup_limit":  # the next rule leaves it out: this engine takes none
        assert getattr(result.config, key) == value
    assert result.auto_corrected
    assert not result.valid
    assert finding.message.endswith(".")


@pytest.mark.parametrize(("name", "bits"), [("4bit", 4), ("int8", 8), ("fp32", 32), ("float32", 32), (4, 4)])
def test_a_precision_may_be_written_as_people_write_it(name: Any, bits: int):
    """No correction is needed for another way to write the same."""
    result = checked({"precision": name})
    assert (result.config.precision, result.valid) == (bits, True)


def test_precision_follows_the_platform():
    """WebGPU has float16 and no int8 products; wasm the other way round."""
    assert checked({"precision": 16}, platform="webgpu").config.precision == 16
    assert found({"precision": 8}, "precision_of_engine", name="bert", platform="webgpu").corrected_to == 16
    assert checked({"precision": 8}, platform="wasm").config.precision == 8


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_low_bit_decoders_on_webgpu_are_taken_as_they_are(bits: int):
    """The WGSL engine runs each width, with a cache of 16 bits and room for 4096 tokens where nothing else is said."""
    result = checked({"precision": bits}, platform="webgpu")
    assert (result.valid, result.config.precision) == (True, bits)
    assert (result.config.kv_cache_bits, result.config.context_length) == (16, 4096)
    asked = checked({"precision": bits, "kv_cache_bits": 2, "context_length": 64}, platform="webgpu")
    assert (asked.valid, asked.config.kv_cache_bits, asked.config.context_length) == (True, 2, 64)


def test_rules_of_the_wgsl_engine():
    """A cache width that there is not, a batch, a workgroup; 2 bits of another class, and 2 bits where any platform would do."""
    assert found({"precision": 2, "kv_cache_bits": 5}, "kv_cache_of_engine", platform="webgpu").corrected_to == 8
    batch = found({"precision": 2, "batch_size": 4}, "batch_of_engine", platform="webgpu")
    assert (batch.corrected_to, batch.severity) == (1, "warning")
    assert "wgsl" in found({"precision": 2, "workgroup_size": 64}, "workgroup_of_engine", platform="webgpu").message
    assert "has no 2-bit weights" in found({"precision": 2}, "precision_of_engine", name="bert", platform="webgpu").message
    assert checked({"precision": 2}, platform="auto").valid
    with pytest.raises(ConfigurationError, match="kv_cache_bits is one of 2, 3, 4, 8, 16, 32, not 'few'"):
        checked({"precision": 2, "kv_cache_bits": "few"}, platform="webgpu")


def test_a_number_may_be_written_as_text_and_nothing_means_the_default():
    """A threshold is compared with sizes, so it is a number afterwards; None is as good as leaving the key out."""
    config = checked({"memory_threshold_mb": "512", "adapter": None, "threads": None}).config
    assert (config.memory_threshold_mb, config.adapter, config.threads) == (512.0, "auto", None)


def test_what_has_no_effect_is_a_warning():
    """A workgroup size for this engine, a context for a model that does not generate, the GPU's front end for one without audio:
    reported, and nothing is invalid."""
    assert found({"workgroup_size": 64}, "workgroup_of_engine").severity == "warning"
    result = checked({"context_length": 100}, name="bert")
    assert [(finding.rule, finding.severity) for finding in result.errors] == [("not_generating", "warning")]
    assert result.valid
    audio = checked({"use_compute_shaders": True}, name="bert")
    assert [(finding.rule, finding.severity) for finding in audio.errors] == [("compute_shaders_of_model", "warning")]


def test_every_rule_has_a_test():
    """The names under which the rules correct, refuse and warn are those that this file asks for."""
    source = ast.parse(Path(configuration_rules.__file__).read_text())
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and node.args]
    called = [(getattr(call.func, "attr", getattr(call.func, "id", "")), call.args[0]) for call in calls]
    makers = ("correct", "_uncorrectable", "Finding", "_word")
    named = {name.value for what, name in called if what in makers and isinstance(name, ast.Constant)}
    asked = {rule for _, rule, *_ in CORRECTED} | {rule for _, rule in REFUSED}
    here = Path(__file__).read_text()
    assert len(named) >= 20
    assert [rule for rule in sorted(named - asked) if f'"{rule}"' not in here] == []
    assert {
        "batch_size",
        "threads",
        "max_pending",
        "max_new_tokens",
        "context_length",
    } <= asked  # each number under its own name


def test_a_folder_of_low_bits_runs_where_its_engine_does(tmp_path: Path):
    """It has no float weights that another engine could take: the rule names the platform that would do."""
    low_bit = tmp_path / "low"
    save(build("llama"), low_bit, 4)
    with pytest.raises(ConfigurationError, match="only the wgsl engine runs") as raised:
        validate({}, lambda config: WebModel(str(low_bit), "text"), "wasm")
    assert raised.value.details["rule"] == "platform_of_folder"
    assert "webgpu" in raised.value.recovery_actions[0]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"precision": "high"}, "precision"),
    ({"precision": True}, "precision"),
    ({"precision": {}}, "mixed_precision"),
    ({"batch_size": "many"}, "batch_size"),
    ({"batch_size": 2.5}, "batch_size"),
    ({"use_kv_cache": "perhaps"}, "boolean"),
    ({"memory_threshold_mb": -1}, "memory_threshold_mb"),
    ({"memory_threshold_mb": float("nan")}, "memory_threshold_mb"),
    ({"batch_size": float("inf")}, "batch_size"),
    ({"batch_size": 10**400}, "batch_size"),
    ({"workgroup_size": [0]}, "workgroup_size"),
    ({"workgroup_size": "big"}, "workgroup_size"),
    ({"error_recovery": "hope"}, "recovery_mode"),
    ({"adapter": "quantum"}, "adapter"),
    ({"weights": "heavy"}, "weights"),
    ({"batchsize": 3}, "unknown_key"),
]


@pytest.mark.parametrize(("asked", "rule"), REFUSED)
def test_what_cannot_be_corrected_is_refused_by_name(asked: dict[str, Any], rule: str):
    """A fatal ConfigurationError whose details name the rule."""
    with pytest.raises(ConfigurationError) as raised:
        checked(asked)
    assert raised.value.details["rule"] == rule
    assert raised.value.severity == "fatal"
    assert raised.value.to_dict()["error"] == "ConfigurationError"


def test_a_mistral_folder_with_a_short_window_is_a_decoder(tmp_path: Path):
    """Saved by transformers: the WGSL engine takes its low widths on WebGPU, other engines the rest; its window is its context."""
    build("mistral").save_pretrained(tmp_path)
    model = WebModel(str(tmp_path), "text")
    assert model.precisions("webgpu") == ("float32", "float16", "int8", "int4", "int3", "int2")
    assert model.engines("auto", "int4") == ("onnxruntime-web", "wgsl")
    assert (model.engine("webgpu", "int4"), model.engine("webgpu", "float16")) == ("wgsl", "onnxruntime-web")
    assert model.longest() == 40
