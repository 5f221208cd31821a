"""The presets are the published models: their parameter counts are the published ones."""

from __future__ import annotations

import pytest
import torch

from ipfs_accelerate_py.models.registry import model_classes

PUBLISHED = [
    ("bert", "small", 22_713_216),
    ("bert", "base", 109_482_240),
    ("vit", "small", 5_717_416),
    ("vit", "base", 86_567_656),
    ("clip", "small", 23_446_017),
    ("clip", "base", 151_277_313),
    ("detr", "base", 41_524_768),
    ("whisper", "small", 37_760_640),
    ("whisper", "base", 72_593_920),
    ("wav2vec2", "base", 94_396_320),
    ("wav2vec2", "base-960h", 94_396_320),
    ("clap", "base", 153_492_890),
    ("llama", "small", 15_191_712),
    ("llama", "base", 1_100_048_384),
    ("llama", "7b", 6_738_415_616),
    ("qwen2", "base", 494_032_768),
    ("qwen2", "1.5b", 1_543_714_304),
    ("qwen2", "7b", 7_615_616_512),
    ("t5", "small", 60_506_624),
    ("t5", "base", 222_903_552),
    ("xclip", "base", 196_585_729),
    ("llava", "base", 864_031_264),
    ("llava", "7b", 7_063_427_072),
    ("llava_next", "7b", 7_566_747_648),
]


@pytest.mark.parametrize(("name", "size", "expected"), PUBLISHED)
def test_parameter_count_is_the_published_one(name: str, size: str, expected: int) -> None:
    """Built without memory (meta device) from the preset's configuration."""
    model_class = model_classes()[name]
    with torch.device("meta"):
        model = model_class.build(model_class.config(model_class.sizes[size].config))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_every_published_size_is_counted() -> None:
    """A preset that names a published model has its count above."""
    published = {(name, key) for name, kind in model_classes().items() for key, size in kind.sizes.items() if size.hub_id}
    assert {(name, size) for name, size, _ in PUBLISHED} == published


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_every_class_has_a_tiny_size_and_a_published_default(name: str) -> None:
    """Tiny is ours; what is taken where no size is named is a published model."""
    model_class = model_classes()[name]
    assert model_class.sizes["tiny"].hub_id is None
    assert model_class.sizes[model_class.default_size].hub_id
