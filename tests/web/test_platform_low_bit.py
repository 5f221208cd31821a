"""Decoders with low-bit weights behind UnifiedWebPlatform: the tokens of the WGSL engine are those of torch, and how it recovers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from decoder_models import build
from product_model import require

from ipfs_accelerate_py.models.registry import SYNTHETIC_SEED, model_classes
from ipfs_accelerate_py.models.synthetic import synthetic_model
from ipfs_accelerate_py.quantize.stored import QuantizedFolder
from ipfs_accelerate_py.web.errors import ConfigurationError
from ipfs_accelerate_py.web.language_model import LanguageModel
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.served_model import Progress

TINY = {"size": "tiny", "weights": "synthetic", "adapter": "software"}
TEXT = {"text": "Once upon a time"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of low-bit weights, and ``qwen2`` with lively weights, saved by transformers."""
    folder = tmp_path_factory.mktemp("low-bit")
    patch = pytest.MonkeyPatch()
    patch.setenv("IPFS_ACCELERATE_CACHE", str(folder / "cache"))
    build("qwen2").save_pretrained(folder / "qwen2")
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def llama(folders: Path) -> Iterator[UnifiedWebPlatform]:
    """llama tiny at 3 bits with a 4-bit cache in Chromium, for the tests that do not break it."""
    require("chromium")
    asked = {**TINY, "precision": 3, "kv_cache_bits": 4, "context_length": 200}
    with UnifiedWebPlatform("llama", "text", "webgpu", "chromium", configuration=asked) as platform:
        yield platform


def greedy(model: Any, low_bit: Path, prompt: np.ndarray, count: int) -> list[int]:
    """Tokens of torch, the whole prompt anew for each, with the dequantised weights."""
    import torch

    stored = QuantizedFolder(low_bit)
    model.load_state_dict({name: torch.from_numpy(stored.read(name).copy()) for name in stored.tensors}, strict=False)
    ids = torch.from_numpy(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits = model(ids).logits[:, -1]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids[0, prompt.shape[1] :].tolist()


def low_bit_folder(platform: UnifiedWebPlatform) -> Path:
    return platform.model.low_bit_weights(platform.runner.plan.precision, lambda step: None)[0]


def test_llama_gives_what_torch_gives_on_the_same_weights(folders: Path):
    """A synthetic shape at 2 bits: torch's tokens and the engine's own, and the result says what it was that ran."""
    require("chromium")
    asked = {**TINY, "precision": 2, "kv_cache_bits": 16}
    with UnifiedWebPlatform("llama", "text", "webgpu", "chromium", configuration=asked) as platform:
        assert platform.validate_configuration()["valid"]
        seen: list[Progress] = []
        loading = platform.load(seen.append)
        answer = platform.run_inference(TEXT, max_new_tokens=12)
        usage, metrics = platform.get_feature_usage(), platform.get_performance_metrics()
        folder, prompt = low_bit_folder(platform), platform.model.preprocess(TEXT).arrays["input_ids"]
        page = platform._host.live.page  # type: ignore[union-attr]
        with LanguageModel(page.browser, folder, adapter="software", page=page) as direct:
            direct.load()
            own = [token.id for token in direct.generate(prompt[0].tolist(), max_new_tokens=12)]
    kind = model_classes()["llama"]
    model = synthetic_model(kind, kind.sizes["tiny"].config, SYNTHETIC_SEED)
    assert answer["result"]["token_ids"] == [greedy(model, folder, prompt, 12)]
    assert own == answer["result"]["token_ids"][0]
    metadata = answer["metadata"]
    assert (metadata["engine"], metadata["weights"], metadata["platform"]) == ("wgsl", "synthetic", "webgpu")
    assert (metadata["precision"], metadata["kv_cache_bits"], metadata["provenance"]) == ("int2", 16, "measured")
    assert metadata["software_adapter"] is True
    assert metadata["adapter"]
    assert metadata["degradations"] == []
    assert 2 < metadata["bits_per_weight"] == usage["bits_per_weight"] < 4  # rows of 64 columns carry much of their scale
    assert (usage["engine"], usage["kv_cache_bits"], usage["context_length"]) == ("wgsl", 16, 256)
    assert {progress.phase for progress in seen} == {"prepare", "fetch", "compile"}
    assert loading["bytes"] == seen[-1].total_bytes > 0
    assert metrics["shaders"]["count"] > 10
    assert metrics["memory"]["gpu_buffer_bytes"] > loading["bytes"]
    assert answer["performance"]["tokens_per_second"] > 0


def test_qwen2_from_a_folder_beside_another_model(folders: Path, llama: UnifiedWebPlatform):
    """Trained weights of a folder at 4 bits, in the page that has the other one open: torch's tokens, a row after the other."""
    expected = llama.run_inference(TEXT, max_new_tokens=8)["result"]["token_ids"]
    asked = {"precision": 4, "adapter": "software", "kv_cache_bits": 16}
    with llama.open_beside(str(folders / "qwen2"), "text", platform="webgpu", configuration=asked) as qwen2:
        batch = [TEXT["text"], "the ferry leaves"]
        answer = qwen2.run_inference({"text": batch}, max_new_tokens=10)
        prompts = [qwen2.model.preprocess({"text": text}).arrays["input_ids"] for text in batch]
        folder, model = low_bit_folder(qwen2), build("qwen2")
        again = llama.run_inference(TEXT, max_new_tokens=8)
    assert answer["result"]["token_ids"] == [greedy(model, folder, prompt, 10) for prompt in prompts]
    assert (answer["metadata"]["weights"], answer["metadata"]["engine"]) == ("trained", "wgsl")
    assert again["result"]["token_ids"] == expected
    assert again["performance"]["reused_prompt_tokens"] > 0
    assert llama.run_inference(TEXT, max_new_tokens=8)["result"]["token_ids"] == expected  # after the other was closed


def test_a_closed_stream_frees_the_engine(llama: UnifiedWebPlatform):
    """Tokens one by one as of the whole answer; closing the iterator ends the answer in the page, and the next request is answered."""
    whole = llama.run_inference(TEXT, max_new_tokens=12)["result"]["token_ids"][0]
    tokens = list(llama.stream(TEXT, max_new_tokens=12))
    assert [token.token_id for token in tokens] == whole
    assert all(one.ms <= other.ms for one, other in itertools.pairwise(tokens))
    stream = llama.stream(TEXT, max_new_tokens=150)
    next(stream)
    stream.close()
    engine = llama.runner.opened.served._model  # type: ignore[union-attr, attr-defined]
    assert engine.finish_reason == "cancelled"
    assert engine.metrics()["last_answer"]["decoded_tokens"] < 100
    assert llama.run_inference(TEXT, max_new_tokens=12)["result"]["token_ids"][0] == whole


def test_a_killed_browser_in_mid_answer_is_made_up_for(folders: Path, llama: UnifiedWebPlatform):
    """A new browser prefills the prompt and what is known, and goes on: the tokens are those of an undisturbed answer, none twice."""
    whole = llama.run_inference(TEXT, max_new_tokens=60)["result"]["token_ids"][0]
    stream = llama.stream(TEXT, max_new_tokens=60)
    tokens = [next(stream)]
    psutil.Process(llama._host.live.page.process.process_ids()[0]).kill()  # type: ignore[union-attr]
    tokens += list(stream)
    assert [token.token_id for token in tokens] == whole
    assert all(one.ms <= other.ms for one, other in itertools.pairwise(tokens))
    (step,) = llama.describe()["degradations"]
    assert step["action"] == "retry"
    metrics = llama.get_performance_metrics()
    assert metrics["recoveries"] == {"retry": 1}
    opened = llama.runner.opened
    assert opened
    last = opened.served._model.metrics()["last_answer"]  # type: ignore[attr-defined]
    assert last["prompt_tokens"] > llama.model.preprocess(TEXT).arrays["input_ids"].shape[1]


def test_what_the_engine_lacks_gives_way_to_the_next_engine(folders: Path, monkeypatch: pytest.MonkeyPatch):
    """An architecture without kernels: wasm takes over at the next width that it has, and the step says why."""
    require("chromium")
    monkeypatch.setattr("ipfs_accelerate_py.web.language_model_folder.ARCHITECTURES", ("qwen2",))
    asked = {**TINY, "precision": 2, "use_shader_precompilation": False}
    with UnifiedWebPlatform("llama", "text", "webgpu", "chromium", configuration=asked) as platform:
        answer = platform.run_inference(TEXT, max_new_tokens=2)
    metadata = answer["metadata"]
    assert (metadata["platform"], metadata["engine"], metadata["precision"]) == ("wasm", "onnxruntime-web", "int4")
    assert metadata["kv_cache_bits"] == 32
    assert metadata["bits_per_weight"] is None
    (step,) = metadata["degradations"]
    assert (step["before"], step["after"]) == ("webgpu int2", "wasm int4")
    assert "The WGSL engine runs qwen2 and not 'llama'" in step["because"]


def test_a_low_bit_folder_runs_as_it_is(llama: UnifiedWebPlatform):
    """A folder made by quantize has its own width, needs no precision, and no engine but this one runs it."""
    llama.load()
    folder = str(low_bit_folder(llama))
    with llama.open_beside(folder, "text", configuration={"adapter": "software", "kv_cache_bits": 4}) as platform:
        answer = platform.run_inference(TEXT, max_new_tokens=8)
        assert platform.config.precision == 3
    assert answer["result"]["token_ids"] == llama.run_inference(TEXT, max_new_tokens=8)["result"]["token_ids"]
    assert (answer["metadata"]["engine"], answer["metadata"]["weights"]) == ("wgsl", "synthetic")
    finding = UnifiedWebPlatform(folder, "text", precision=8).validation.errors[0]
    assert (finding.rule, finding.corrected_to) == ("precision_of_engine", 3)
    with pytest.raises(ConfigurationError, match="only the wgsl engine runs"):
        UnifiedWebPlatform(folder, "text", "wasm")
    with pytest.raises(ConfigurationError, match="A simulation runs onnxruntime"):
        UnifiedWebPlatform(folder, "text", web_api_mode="simulation")


def test_the_embedded_model_writes_text_without_a_hub(folders: Path):
    """The bare name of the class is the trained model of the package, and its tokens are torch's on the same weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    require("chromium")
    with UnifiedWebPlatform("llama", "text", "webgpu", "chromium", configuration={"adapter": "software"}) as platform:
        answer = platform.run_inference({"text": "The program reads"}, max_new_tokens=6)
        prompt = platform.model.preprocess({"text": "The program reads"}).arrays["input_ids"]
        folder = platform.model.low_bit
    assert folder is not None
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    assert answer["result"]["token_ids"] == [greedy(model, folder, prompt, 6)]
    assert (answer["metadata"]["weights"], answer["metadata"]["engine"]) == ("trained", "wgsl")
    assert any(character.isalpha() for character in answer["result"]["text"][0])
