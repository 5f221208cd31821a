"""From names and files to shapes, and what an unknown name gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.graph.names import known


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert-base-uncased", ("bert", "base", 109_482_240)),
        ("google-bert/bert-base-uncased", ("bert", "base", 109_482_240)),
        ("BERT_base", ("bert", "base", 109_482_240)),
        ("t5-base", ("t5", "base", 222_903_552)),
        ("llama-7b", ("llama", "7b", 6_738_415_616)),
        ("meta-llama/Llama-2-70b-hf", ("llama", None, 68_976_648_192)),
        ("Meta-Llama-3-8B", ("llama", None, 8_030_261_248)),
        ("whisper-large-v3", ("whisper", None, 1_543_490_560)),
        ("qwen2.5-32b", ("qwen2", None, 32_763_876_352)),
        ("whisper-tiny", ("whisper", "small", 37_760_640)),
        ("bert-large-uncased", ("bert", None, 335_141_888)),
    ],
)
def test_published_and_colloquial_names(name: str, expected: tuple[str, str | None, int]) -> None:
    """Each with its class, its preset where it is one, and the parameters that are published for it."""
    description = describe(name)
    assert (description.model_class, description.size, description.parameters) == expected


def test_every_known_name_is_described() -> None:
    """No name is offered that is then refused, and none has no parameters."""
    assert min(describe(name).parameters for name in known()) > 1_000_000


def test_a_folder_and_a_config_are_described_by_their_shape(tmp_path: Path) -> None:
    """A config.json with a shape of its own, named by its file or its folder."""
    config = {"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    config |= {"intermediate_size": 512, "vocab_size": 100, "max_position_embeddings": 32, "type_vocab_size": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128
    expected = (100 + 32 + 2) * 128 + 2 * 128 + 3 * layer + 128 * 128 + 128
    assert describe(tmp_path).parameters == describe(tmp_path / "config.json").parameters == expected
    assert describe(tmp_path).size == "custom"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bert-bsae-uncased", "Unknown model 'bert-bsae-uncased': did you mean .*bert-base-uncased.*; or give a config.json"),
        ("./nowhere", "There is no file or folder './nowhere'."),
        ("gone.onnx", "There is no file or folder 'gone.onnx'."),
    ],
)
def test_an_unknown_model_gets_its_nearest_names(name: str, sentence: str) -> None:
    """And what else would do."""
    with pytest.raises(UserError, match=sentence):
        describe(name)


def test_a_config_of_another_kind_of_model_is_told_to_be_exported(tmp_path: Path) -> None:
    """Its operators follow from no formula here, but from a graph."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "hidden_size": 64}))
    with pytest.raises(UserError, match=r"type 'mamba'.*Export it to ONNX"):
        describe(tmp_path)


def test_a_config_without_its_sizes_is_refused(tmp_path: Path) -> None:
    """By the name of what it lacks."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    with pytest.raises(UserError, match="lacks what its operators follow from: KeyError"):
        describe(tmp_path)


def test_describing_and_counting_import_neither_torch_nor_transformers() -> None:
    """In a fresh process."""
    code = (
        "import sys; from ipfs_accelerate_py.graph import count, describe; count(describe('llama-7b')); count(describe('xclip'));"
        "print(sorted({'torch', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
