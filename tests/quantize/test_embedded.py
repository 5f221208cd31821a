"""The low-bit model that the package carries: whole, small, and able to read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from ipfs_accelerate_py.quantize.embedded import FOLDERS, embedded_folder
from ipfs_accelerate_py.quantize.quality import perplexity
from ipfs_accelerate_py.quantize.stored import QuantizedFolder, read_manifest

WINDOW = 48


def test_only_the_bare_name_is_the_embedded_model():
    """A preset of the class and synthetic weights are asked for in the same words as before."""
    folder = embedded_folder("llama", None, "auto")
    assert folder == FOLDERS["llama"] == embedded_folder("llama", None, "trained")
    assert embedded_folder("llama", "small", "auto") is None
    assert embedded_folder("llama", None, "synthetic") is None
    assert embedded_folder("bert", None, "auto") is None


def test_the_folder_is_whole_and_small():
    """Every shard has the bytes and digest that its manifest states, the whole fits a wheel, and it says what it was made of."""
    folder = FOLDERS["llama"]
    QuantizedFolder(folder).verify()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 16e6
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["measured"]["held_out_perplexity"] > 1
    assert not read_manifest(folder)["request"]["origin"].startswith("synthetic:")


def test_it_reads_passages_that_it_was_not_trained_on():
    """Broken weights or codes would give thousands; the perplexity of whole documents was 32 before rounding to 4 bits."""
    folder = FOLDERS["llama"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    passages = json.loads((Path(__file__).parents[2] / "training" / "results" / "llama" / "held_out.json").read_text())
    ids = [tokenizer(passage["text"]).input_ids for passage in passages]
    windows = np.array([each[:WINDOW] for each in ids if len(each) >= WINDOW])
    assert len(windows) >= 3
    stored = QuantizedFolder(folder)
    assert perplexity(read_manifest(folder)["config"], windows, stored.read).perplexity < 150
