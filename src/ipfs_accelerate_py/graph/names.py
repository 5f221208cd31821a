"""The names that people give to models: hub ids, their last parts, and colloquial ones, with the published shape of each.

Shapes are those of the models' own config.json on the hub, under the id that is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..models.registry import built_in, model_classes


@dataclass(frozen=True)
class Named:
    """A published model: its class, the preset that it is (None for other shapes), its hub id and its configuration."""

    model_class: str
    size: str | None
    hub_id: str | None
    config: Mapping[str, Any]


# Hub id: class, the preset whose other settings it shares, what differs from it, and colloquial names.
PUBLISHED: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {}


def _published(hub_id: str, model_class: str, like: str, aliases: tuple[str, ...] = (), **differs: Any) -> None:
    PUBLISHED[hub_id] = (model_class, like, differs, aliases)


def _decoder(width: int, layers: int, heads: int, groups: int, hidden: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "num_key_value_heads": groups, "intermediate_size": hidden}


def _encoder(width: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "intermediate_size": 4 * width}


def _whisper(width: int, layers: int, heads: int) -> dict[str, Any]:
    sides = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    return {"d_model": width} | {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()}


_published("google-bert/bert-large-uncased", "bert", "base", ("bert-large",), **_encoder(1024, 24, 16))
_published("google-bert/bert-base-cased", "bert", "base", vocab_size=28996)
_published("google/vit-large-patch16-224", "vit", "base", ("vit-large",), **_encoder(1024, 24, 16))
_published("google-t5/t5-large", "t5", "base", (), d_model=1024, d_ff=4096, num_layers=24, num_heads=16)
_published("google-t5/t5-3b", "t5", "base", (), d_model=1024, d_ff=16384, num_layers=24, num_heads=32, d_kv=128)
_published("google-t5/t5-11b", "t5", "base", (), d_model=1024, d_ff=65536, num_layers=24, num_heads=128, d_kv=128)
_published("openai/whisper-small", "whisper", "base", (), **_whisper(768, 12, 12))
_published("openai/whisper-medium", "whisper", "base", (), **_whisper(1024, 24, 16))
_published("openai/whisper-large-v2", "whisper", "base", ("whisper-large",), **_whisper(1280, 32, 20))
_published("openai/whisper-large-v3", "whisper", "base", (), **_whisper(1280, 32, 20), vocab_size=51866, num_mel_bins=128)
_published("meta-llama/Llama-2-13b-hf", "llama", "7b", ("llama-2-13b", "llama-13b"), **_decoder(5120, 40, 40, 40, 13824))
_published("meta-llama/Llama-2-70b-hf", "llama", "7b", ("llama-2-70b", "llama-70b"), **_decoder(8192, 80, 64, 8, 28672))
_LLAMA_3 = {"vocab_size": 128256, "max_position_embeddings": 8192}
_LONG = {"vocab_size": 128256, "max_position_embeddings": 131072}
_published(
    "meta-llama/Meta-Llama-3-8B", "llama", "7b", ("llama-3-8b", "llama-8b"), **_decoder(4096, 32, 32, 8, 14336), **_LLAMA_3
)
_published("meta-llama/Meta-Llama-3-70B", "llama", "7b", ("llama-3-70b",), **_decoder(8192, 80, 64, 8, 28672), **_LLAMA_3)
_published(
    "meta-llama/Llama-3.2-1B",
    "llama",
    "7b",
    ("llama-1b",),
    **_decoder(2048, 16, 32, 8, 8192),
    **_LONG,
    tie_word_embeddings=True,
)
_published(
    "meta-llama/Llama-3.2-3B",
    "llama",
    "7b",
    ("llama-3b",),
    **_decoder(3072, 28, 24, 8, 8192),
    **_LONG,
    tie_word_embeddings=True,
)
_published("Qwen/Qwen2-72B-Instruct", "qwen2", "7b", ("qwen2-72b",), **_decoder(8192, 80, 64, 8, 29568))
_published("Qwen/Qwen2.5-3B-Instruct", "qwen2", "base", ("qwen2.5-3b",), **_decoder(2048, 36, 16, 2, 11008))
_published("Qwen/Qwen2.5-14B-Instruct", "qwen2", "7b", ("qwen2.5-14b",), **_decoder(5120, 48, 40, 8, 13824))
_published("Qwen/Qwen2.5-32B-Instruct", "qwen2", "7b", ("qwen2.5-32b",), **_decoder(5120, 64, 40, 8, 27648))

# Colloquial names of presets.
_OF_PRESET = {"llama-2-7b": ("llama", "7b"), "tinyllama": ("llama", "base"), "qwen2-0.5b": ("qwen2", "base")}
_OF_PRESET |= {"llava-1.5-7b": ("llava", "7b"), "llava-1.6-7b": ("llava_next", "7b"), "detr-resnet-50": ("detr", "base")}
_OF_PRESET |= {"qwen2-1.5b": ("qwen2", "1.5b"), "qwen2-7b": ("qwen2", "7b"), "vit-base": ("vit", "base")}
_OF_PRESET |= {"all-minilm-l6-v2": ("bert", "small"), "minilm": ("bert", "small"), "clip-vit-base-patch32": ("clip", "base")}


def find(name: str) -> Named | None:
    """The model of this name, however it is capitalised or punctuated; None for an unknown one."""
    plain = _plain(name)
    return _table(own=True).get(plain) or (None if name in built_in() else _table(own=False).get(plain))


def known() -> list[str]:
    """Names as people write them: hub ids, their last parts, and ``class-size``."""
    presets = [
        f"{name}-{size}" for name, kind in model_classes().items() for size, preset in kind.sizes.items() if preset.hub_id
    ]
    hub_ids = [preset.hub_id for kind in model_classes().values() for preset in kind.sizes.values() if preset.hub_id]
    ids = [hub_id.partition("@")[0] for hub_id in (*hub_ids, *PUBLISHED)]
    aliases = [alias for *_, aliases in PUBLISHED.values() for alias in aliases]
    return sorted({*model_classes(), *presets, *ids, *(hub_id.partition("/")[2] for hub_id in ids), *aliases, *_OF_PRESET})


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.:]+", "-", name.strip().lower()).removesuffix("-hf")


@cache
def _table(own: bool) -> dict[str, Named]:
    """Of the package's ``own`` classes, or of all that are installed."""
    table: dict[str, Named] = {}
    classes = built_in() if own else model_classes()

    def add(named: Named, *names: str) -> None:
        for name in names:
            table.setdefault(_plain(name), named)

    presets = [(name, size, preset) for name, kind in classes.items() for size, preset in kind.sizes.items() if preset.hub_id]
    # Hub names first: openai/whisper-small is not the preset "small" of Whisper, which has the shape of openai/whisper-tiny.
    for name, size, preset in presets:
        hub_id = str(preset.hub_id).partition("@")[0]
        add(Named(name, size, preset.hub_id, preset.config), hub_id, hub_id.partition("/")[2])
    for hub_id, (name, like, differs, aliases) in PUBLISHED.items():
        config = {**classes[name].sizes[like].config, **differs}
        add(Named(name, None, hub_id, config), hub_id, hub_id.partition("/")[2], *aliases)
    for alias, (name, size) in _OF_PRESET.items():
        preset = classes[name].sizes[size]
        add(Named(name, size, preset.hub_id, preset.config), alias)
    for name, size, preset in presets:
        add(Named(name, size, preset.hub_id, preset.config), f"{name}-{size}")
    return table
