"""A tiny trained-looking llama with a tokenizer, as transformers saves it, and text for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipfs_accelerate_py.models.registry import model_classes

SAMPLE = "the a of weights are rounded to few bits and every group has one scale so that errors stay small in each row"
WORDS = SAMPLE.split()


def sentences(count: int, seed: int) -> str:
    """Seeded text of WORDS."""
    import random

    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(count))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama tiny with seeded weights, in two safetensors shards of float16, with a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from ipfs_accelerate_py.models.synthetic import synthetic_model

    folder = tmp_path_factory.mktemp("model")
    llama = model_classes()["llama"]
    model = synthetic_model(llama, llama.sizes["tiny"].config, 3, dtype=torch.float16)
    model.save_pretrained(folder, max_shard_size="150KB")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [sentences(500, 0)], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough text to calibrate on."""
    path = tmp_path_factory.mktemp("text") / "sample.txt"
    path.write_text(sentences(4000, 1))
    return path
