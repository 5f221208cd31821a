"""BERT as ``models.bert`` runs it: a sentence encoder without the pooler, and RoBERTa, CLAP's text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..blocks import encoder_layers, unit_length
from ..tape import Tape


def trace(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int, new_tokens: int) -> None:
    """One pass over ``batch`` texts of ``sequence`` tokens to embeddings of length 1."""
    width = config["hidden_size"]
    with tape.phase("forward"):
        tower(tape, config, batch, sequence)
        tape.elementwise("attended", batch * sequence * width, 1)
        tape.reduce("mean", batch * sequence * width, batch * width)
        unit_length(tape, "normalise", batch, width)
    tape.parameter("pooler", width * width + width)


def tower(tape: Tape, config: Mapping[str, Any], batch: int, sequence: int) -> None:
    """Embeddings and layers: [batch, sequence] token ids to hidden states."""
    width, rows = config["hidden_size"], batch * sequence
    with tape.scope("embeddings"):
        tape.embedding("word", rows, width, config["vocab_size"])
        tape.embedding("position", sequence, width, config["max_position_embeddings"])
        tape.embedding("token_type", rows, width, config.get("type_vocab_size", 2))
        tape.elementwise("add_type", rows * width)
        tape.elementwise("add_position", rows * width)
        tape.norm("norm", rows, width)
    layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]
    encoder_layers(tape, layers, batch, sequence, width, heads, hidden)
