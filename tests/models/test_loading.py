"""Broken model folders, made by breaking a good one, and the sentence that each gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.loading import load_folder, weight_files
from ipfs_accelerate_py.models.registry import model_classes, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT as transformers saves it."""
    bert = model_classes()["bert"]
    bert.build(bert.config(bert.sizes["tiny"].config)).save_pretrained(tmp_path)
    return tmp_path


def message(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_folder(model_classes()["bert"], folder)
    return str(raised.value)


def change_config(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_good_folder_loads_its_own_weights(folder: Path) -> None:
    """Float32, eval mode, every tensor as stored."""
    model = load_folder(model_classes()["bert"], folder)
    stored = load_file(folder / "model.safetensors")
    assert not model.training
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_half_precision_weights_load_as_float32(folder: Path) -> None:
    """The reference is float32 whatever the folder holds."""
    halves = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, dtype="float16")
    model = load_folder(model_classes()["bert"], folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_no_config(folder: Path) -> None:
    """The folder is named."""
    (folder / "config.json").unlink()
    assert message(folder).startswith(f"'{folder}' is not a model: it has no config.json.")


def test_config_is_not_json(folder: Path) -> None:
    """The file and the place in it are named."""
    (folder / "config.json").write_text('{"model_type": ')
    assert "config.json' is not valid JSON: Expecting value: line 1" in message(folder)


def test_config_of_a_model_that_is_not_supported(folder: Path) -> None:
    """The type is named, with those that are supported."""
    change_config(folder, model_type="mamba")
    with pytest.raises(UserError, match=r"is a model of type 'mamba', which is not supported; supported: bert, .*whisper"):
        resolve(str(folder))


def test_config_that_makes_no_model(folder: Path) -> None:
    """Heads that do not divide the width are the config's fault."""
    change_config(folder, num_attention_heads=5)
    assert "config.json' does not describe a bert model" in message(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"hidden_act": "swishy"},
        {"intermediate_size": -4},
        {"pad_token_id": 5000},
        {"dtype": "float99"},
        {"hidden_size": "wide"},
        {"num_hidden_layers": None},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_config_with_a_value_that_makes_no_model(folder: Path, entries: dict[str, object]) -> None:
    """Whatever the library raises, in one line."""
    change_config(folder, **entries)
    said = message(folder)
    assert "config.json' does not describe a bert model: " in said
    assert "\n" not in said


def test_weights_of_an_unknown_type(folder: Path) -> None:
    """A header that is whole, with a data type that nothing reads."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F99"', 1))
    assert f"The model in '{folder}' cannot be loaded: " in message(folder)


def test_no_weights(folder: Path) -> None:
    """What was looked for is named."""
    (folder / "model.safetensors").unlink()
    assert "has no weights: neither model.safetensors nor model.safetensors.index.json" in message(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    """A pickle is not even opened: this one would leave a trace."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'" + str(folder / "trace").encode() + b"'\ntR.")
    assert "only as a pickle (pytorch_model.bin), which can run code" in message(folder)
    assert not (folder / "trace").exists()


@pytest.mark.parametrize("cut", [1, 100_000])
def test_truncated_weights(folder: Path, cut: int) -> None:
    """The file, the bytes that its header promises and the bytes that are there."""
    file = folder / "model.safetensors"
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-cut])
    assert f"{file}' is truncated: its header promises {whole:,} bytes, the file has {whole - cut:,}" in message(folder)


@pytest.mark.parametrize("left", [0, 5, 200])
def test_weights_cut_within_the_header(folder: Path, left: int) -> None:
    """Also where the header itself is incomplete."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert "is truncated or not safetensors: its header needs at least" in message(folder)


def test_weights_that_are_something_else(folder: Path) -> None:
    """A web page saved under the name (a frequent download fault)."""
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0<html></html>     ")
    assert "is not a safetensors file: its header is not JSON" in message(folder)


def test_shapes_that_do_not_fit(folder: Path) -> None:
    """The first tensor with its two shapes."""
    change_config(folder, vocab_size=1200)
    assert message(folder).endswith(
        "tensor 'embeddings.word_embeddings.weight' is [1000, 64] in the weights and [1200, 64] by the config."
    )


def test_missing_tensors(folder: Path) -> None:
    """A config with more layers than the weights have."""
    change_config(folder, num_hidden_layers=3)
    assert "lack 16 tensors of a bert model, first 'encoder.layer.2.attention" in message(folder)


def test_a_pooler_that_nothing_reads_may_be_missing(folder: Path) -> None:
    """Sentence encoders are often saved without it."""
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_folder(model_classes()["bert"], folder) is not None


def test_missing_shard(folder: Path) -> None:
    """The shard that the index names."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"its index names model-00002-of-00002\.safetensors, which is not there"):
        weight_files(folder)


@pytest.mark.parametrize(
    ("index", "part"),
    [
        ("[]", "holds no names with values"),
        ("{", "not valid JSON"),
        ("{}", "does not say which file each tensor is in"),
        ('{"weight_map": {"a": 5}}', "does not say which file each tensor is in"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "which is not in the model's folder"),
        ('{"weight_map": {"a": "/etc/hostname"}}', "which is not in the model's folder"),
    ],
)
def test_an_index_that_names_no_files_of_the_folder(folder: Path, index: str, part: str) -> None:
    """Neither a traceback nor a file from elsewhere."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=part):
        resolve(str(folder))


@pytest.mark.parametrize("header", ["[]", '{"a": 3}', '{"a": {}}', '{"a": {"data_offsets": ["x", "y"]}}'])
def test_a_header_without_places(folder: Path, header: str) -> None:
    """JSON, but no list of tensors."""
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert "its header does not say where its tensors are" in message(folder)


def test_a_config_cannot_ask_for_code_of_the_hub(folder: Path) -> None:
    """transformers would fetch an attention kernel that a config.json names, and run it."""
    change_config(folder, attn_implementation="somebody/kernel", auto_map={"AutoModel": "evil.Model"})
    assert load_folder(model_classes()["bert"], folder).config._attn_implementation in ("sdpa", "eager")


def test_quantized_weights(folder: Path) -> None:
    """Refused by what they are, not by the package that could read them."""
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match="are quantized already"):
        load_folder(model_classes()["bert"], folder)
