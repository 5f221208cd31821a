"""``setup_ultra_low_precision``: the published example, nothing in it a constant, and what cannot be had with its reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixed_web_platform.webgpu_shader_precompilation import setup_ultra_low_precision
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.models.synthetic import synthetic_model
from ipfs_accelerate_py.quantize.blank import shortened
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import Plan, uniform
from ipfs_accelerate_py.web.browsers import find_browsers

EXAMPLE = """
from fixed_web_platform.webgpu_shader_precompilation import setup_ultra_low_precision

# Set up 2-bit quantization with KV-cache optimization
result = setup_ultra_low_precision(
    model_name="llama-7b",
    model_type="text",
    precision_bits=2,
    mixed_precision=True,
    enable_kv_cache=True,
    extended_context=True,
    browser="chrome"
)

# Access configuration
config = result["ultra_low_precision"]
print(f"Memory reduction: {config['memory_reduction_percent']}%")
print(f"Extended context: {config['context_extension_factor']}x longer context")
"""


@pytest.fixture(autouse=True)
def without_chrome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Chrome is installed it would compile a 7B model's pipelines in every test; one test asks a browser on purpose."""
    monkeypatch.setenv("IPFS_ACCELERATE_BROWSER_CHROME", str(tmp_path / "none"))


def config_of(name: str, **more: Any) -> dict[str, Any]:
    return setup_ultra_low_precision(name, **more)["ultra_low_precision"]


def test_the_published_example_runs_verbatim() -> None:
    """Its two lines, with the numbers that the shapes of Llama-2-7B give."""
    done = subprocess.run([sys.executable, "-c", EXAMPLE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Memory reduction: 86.0%\nExtended context: 3.9x longer context\n"


def test_bytes_by_hand() -> None:
    """Uniform 2 bits: 226 matrices and 65 float32 norms; 4-bit keys and 2-bit values with 128 float16 tokens in 2 GiB of cache."""
    found = config_of("llama-7b", mixed_precision=False)
    row4096, row11008 = 1024 + 64 + 32 + 2, 2752 + 172 + 88 + 2
    size = 32 * ((4 * 4096 + 2 * 11008) * row4096 + 4096 * row11008) + 2 * 32000 * row4096 + 65 * 4096 * 4
    assert found["weight_bytes"] == size
    assert found["memory_reduction_percent"] == round(100 * (1 - size / (2 * 6_738_415_616)), 2)
    assert found["kv_cache"]["bytes_per_token"] == 32 * 32 * 128 * (5 + 3) / 8
    assert found["max_context_tokens"] * found["kv_cache"]["bytes_per_token"] <= found["kv_budget_bytes"] == 4096 * 524_288


def test_nothing_is_a_constant() -> None:
    """Other models, widths and switches give other values."""
    models = [config_of(name) for name in ("llama-7b", "qwen2-1.5b", "llama-base")]
    assert len({found["bits_per_weight"] for found in models}) == 3
    assert len({found["context_extension_factor"] for found in models}) == 3
    widths = [config_of("llama-7b", precision_bits=bits)["memory_reduction_percent"] for bits in (2, 3, 4)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[2] + 10
    plain = config_of("llama-7b", enable_kv_cache=False)
    assert (plain["context_extension_factor"], plain["kv_cache"]["key_bits"]) == (1.0, 16)
    shorter = config_of("llama-7b", extended_context=False)
    assert 1 < shorter["context_extension_factor"] < models[0]["context_extension_factor"]
    assert set(models[0]["layers"].values()) != {2}


def test_what_cannot_be_had_is_none_with_its_reason() -> None:
    """No trained weights of a shape, and no pipelines without a browser."""
    result = setup_ultra_low_precision("llama-7b", browser="chrome")
    found = result["ultra_low_precision"]
    assert found["quality"] is None
    assert "no trained weights" in found["quality_reason"]
    assert found["provenance"]["quality"] == "unavailable"
    assert result["precompilation"]["pipelines"] is None
    assert len(result["precompilation"]["reason"]) > 20
    json.dumps(result)


def test_pipelines_are_compiled_by_a_browser() -> None:
    """Every kernel that a decoder needs, each timed, for a plan with two widths; the adapter that did it is named."""
    browser = next((key for key, found in find_browsers().items() if getattr(found, "kind", "") == "chromium"), None)
    if browser is None:
        pytest.skip("no browser of the Chromium kind is installed")
    result = setup_ultra_low_precision("llama-small", precision_bits=4, browser=browser)
    compiled = result["precompilation"]
    assert compiled["pipelines"] == len(compiled["per_pipeline"]) > 10, compiled["reason"]
    kernels = {entry["kernel"] for entry in compiled["per_pipeline"]}
    assert {"matvec", "attention_decode", "fold", "embed"} <= kernels
    assert all(entry["cold_ms"] > 0 and entry["cached_ms"] > 0 for entry in compiled["per_pipeline"])
    assert compiled["load_ms_cold"] > 0
    assert compiled["load_ms_cached"] > 0
    assert compiled["adapter"]
    assert result["ultra_low_precision"]["provenance"]["precompilation"] == "measured"


def test_shapes_that_do_not_fit_this_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 50 MB free the zeros of Llama-2-7B's shapes are not even written; both numbers are told."""
    monkeypatch.setattr("ipfs_accelerate_py.web.precompilation.find_browser", None)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=50_000_000))
    compiled = setup_ultra_low_precision("llama-7b")["precompilation"]
    assert compiled["pipelines"] is None
    assert re.search(r"need 0\.[1-9] GB while they load, and 0\.1 GB are free", compiled["reason"]), compiled["reason"]


def test_one_layer_of_each_combination_stands_for_all() -> None:
    """A plan in which two of 32 layers differ is shortened to two layers, with the widths of both."""
    config = {"model_type": "llama", **model_classes()["llama"].sizes["7b"].config}
    plan = uniform(config, Format(2))
    wide = {name: Format(4) if ".7." in name or ".9." in name else form for name, form in plan.formats.items()}
    short, formats = shortened(config, Plan(wide, "prior"))
    assert short["num_hidden_layers"] == 2
    assert set(formats.formats) == set(uniform(short, Format(2)).formats)
    assert formats.formats["model.layers.1.mlp.up_proj.weight"].bits == 4
    assert formats.formats["model.layers.0.mlp.up_proj.weight"].bits == 2


def test_a_folder_of_weights_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More bits come nearer to the float logits, and the layers are chosen by measured errors."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    kind = model_classes()["llama"]
    synthetic_model(kind, kind.sizes["tiny"].config, 5).save_pretrained(tmp_path / "model")
    found = {bits: config_of(str(tmp_path / "model"), precision_bits=bits) for bits in (2, 4)}
    assert found[2]["quality"]["logit_cosine"] < found[4]["quality"]["logit_cosine"] < 1
    assert found[4]["provenance"]["quality"] == "measured"
    assert found[4]["quality_reason"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model_name": "llama-7bb"}, "Unknown model 'llama-7bb'"),
        ({"model_name": "bert-base"}, "low-bit weights are made for decoders"),
        ({"model_name": "llama-7b", "model_type": "vision"}, "model_type 'text', not 'vision'"),
        ({"model_name": "llama-7b", "precision_bits": 5}, "precision_bits is 2, 3, 4, not 5"),
        ({"model_name": "llama-7b", "browser": "chrme"}, "chrome"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    """Names, types, widths and browsers that there are not."""
    with pytest.raises(UserError, match=sentence):
        setup_ultra_low_precision(**arguments)
