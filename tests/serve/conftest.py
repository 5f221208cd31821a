"""Servers to test: around a small decoder on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from running_server import MakeService
from torch_engine import VOCABULARY, TorchEngine

from ipfs_accelerate_py.models.processing.text import synthetic_tokenizer
from ipfs_accelerate_py.serve.detokenize import Decoding
from ipfs_accelerate_py.serve.embeddings import Embedder
from ipfs_accelerate_py.serve.prompt import Prompts
from ipfs_accelerate_py.serve.scheduler import Limits
from ipfs_accelerate_py.serve.service import Service

LIMITS = Limits(waiting=8, waiting_per_client=6, reserve_bytes=0)


@pytest.fixture(scope="module")
def make_service(tmp_path_factory: pytest.TempPathFactory) -> MakeService:
    """``make_service(engine, **limits)``: a service named ``tiny`` without a chat template."""

    def make(engine: TorchEngine, embedder: Embedder | None = None, **limits: float) -> Service:
        folder: Path = tmp_path_factory.mktemp("tiny")
        tokenizer = synthetic_tokenizer(VOCABULARY)
        chosen = replace(LIMITS, **limits)  # type: ignore[arg-type]
        decoding = Decoding(tokenizer, engine.end_tokens)
        return Service("tiny", engine, Prompts(tokenizer, folder), decoding, embedder, {"weights": "synthetic"}, chosen)

    return make
