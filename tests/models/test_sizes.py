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
    ("whisper", "small", 37_760_640),
    ("whisper", "base", 72_593_920),
    ("llama", "small", 15_191_712),
    ("llama", "base", 1_100_048_384),
    ("llama", "7b", 6_738_415_616),
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


@pytest.mark.parametrize("name", ["bert", "vit", "whisper", "llama"])
def test_every_class_has_the_uniform_sizes(name: str) -> None:
    """Tiny (ours), small and base exist everywhere."""
    sizes = model_classes()[name].sizes
    assert {"tiny", "small", "base"} <= set(sizes)
    assert sizes["tiny"].hub_id is None
