"""Example token ids: real English text where the model's folder has a tokenizer, otherwise seeded random ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..lazy_numpy import np
from .rows import row_generators

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SENTENCES = (
    "The ferry leaves the harbour at seven and returns before dark.",
    "Researchers measured how much energy the new battery keeps after a thousand charging cycles.",
    "She opened the window because the kitchen had filled with smoke.",
    "A matrix is positive definite when all of its eigenvalues are greater than zero.",
    "The committee postponed its decision until the budget report is complete.",
    "Wild geese fly south in autumn, and their calls can be heard long before they are seen.",
    "To install the update, close every program and restart the computer.",
    "The museum shows paintings from the seventeenth century, most of them on loan from private collections.",
    "Heavy rain flooded the lower fields, so the farmers moved their cattle to higher ground.",
    "He learned to play the violin at six and gave his first concert at nine.",
    "Prices rose by two percent last year while wages stayed almost the same.",
    "The recipe asks for three eggs, a cup of flour and a pinch of salt.",
    "Light from that galaxy has travelled for two billion years to reach our telescope.",
    "The train was late again, and nobody at the station could say why.",
    "Vaccines train the immune system to recognise a virus that it has never met.",
    "Our neighbour repairs old bicycles and gives them to children in the village.",
)


def token_ids(
    config: PretrainedConfig, batch_size: int, sequence_length: int, seed: int, padded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 [batch, sequence] and the number of real tokens in each row, int64 [batch].

    ``padded`` allows shorter rows (half the sequence or more) that end in padding; otherwise every row is full.
    """
    generators = row_generators(seed, batch_size)
    shortest = max(1, sequence_length // 2) if padded else sequence_length
    lengths = [int(generator.integers(shortest, sequence_length, endpoint=True)) for generator in generators]
    tokenizer_file = Path(config.name_or_path or "") / "tokenizer.json"
    if config.name_or_path and tokenizer_file.is_file():
        rows = [_english(tokenizer_file, length, generator) for length, generator in zip(lengths, generators, strict=True)]
    else:
        rows = [
            list(generator.integers(0, config.vocab_size, size=length))
            for length, generator in zip(lengths, generators, strict=True)
        ]
    ids = np.full((batch_size, sequence_length), config.pad_token_id or 0, dtype=np.int64)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids, np.array([len(values) for values in rows], dtype=np.int64)


def _english(tokenizer_file: Path, length: int, generator: np.random.Generator) -> list[int]:
    """``length`` tokens of seeded sentences, with the tokenizer's own special tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    text = ""
    while True:
        text += SENTENCES[generator.integers(len(SENTENCES))] + " "
        ids = tokenizer.encode(text).ids
        if len(ids) >= length:
            return list(ids)
