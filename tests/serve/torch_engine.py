"""A small decoder on the CPU that the server's logic is tested with: real computation, the same answer every time, no browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web.language_model import Sampling, Token

VOCABULARY = 300


def decoder() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        initializer_range=0.5,  # larger than usual, so that the next token is not nearly always the same one
    )
    return LlamaForCausalLM(config).eval()


class TorchEngine:
    """``gate`` is waited for before each answer's first token and ``step`` is called before every token: a test decides what happens when.

    Noise depends on seed and position alone, so an answer that goes on elsewhere is the same one. ``running`` is set while any answer is
    generated; ``most_running`` at a time were.
    """

    def __init__(self, context_length: int = 8192, end_tokens: Sequence[int] = (), slots: int = 1) -> None:
        self.context_length = context_length
        self.slots = slots
        self.restarts = 0
        self.end_tokens = tuple(end_tokens)
        self.gate = threading.Event()
        self.gate.set()
        self.step: Callable[[int], None] = lambda position: None
        self.running = threading.Event()
        self.most_running = 0
        self.served: list[tuple[int, ...]] = []
        self.model = decoder()
        self._lock = threading.Lock()
        self._answers = 0

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, on_restart: Callable[[str, int], None]
    ) -> TorchAnswer:
        return TorchAnswer(self, prompt, max_new_tokens, sampling)

    def began(self, prompt: Sequence[int]) -> None:
        with self._lock:
            self.served.append(tuple(prompt))
            self._answers += 1
            self.most_running = max(self.most_running, self._answers)
            self.running.set()

    def ended(self) -> None:
        with self._lock:
            self._answers -= 1
            if self._answers == 0:
                self.running.clear()

    def cache_facts(self) -> dict[str, Any]:
        return {"key_bits": 32, "value_bits": 32}

    def describe(self) -> dict[str, Any]:
        return {"engine": "torch", "software_adapter": None}

    def close(self) -> None:
        pass


class TorchAnswer:
    def __init__(self, engine: TorchEngine, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling) -> None:
        self.finish_reason: str | None = None
        self.reused_tokens = 0
        self._cancelled = threading.Event()
        self._tokens = self._generate(engine, prompt, max_new_tokens, sampling)

    def __iter__(self) -> Iterator[Token]:
        return self._tokens

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self._tokens.close()

    def _generate(
        self, engine: TorchEngine, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling
    ) -> Generator[Token, None, None]:
        engine.began(prompt)
        try:
            if not engine.gate.wait(60):
                raise LaunchError("timeout", "the test's gate stayed closed")
            past, ids = None, list(prompt)
            for count in range(max_new_tokens):
                if self._cancelled.is_set():
                    self.finish_reason = "cancelled"
                    return
                engine.step(len(prompt) + count)
                with torch.inference_mode():
                    outputs = engine.model(torch.tensor([ids]), past_key_values=past, use_cache=True)
                past, logits = outputs.past_key_values, outputs.logits[0, -1].double().numpy()
                token = choose(logits, sampling, len(prompt) + count)
                ids = [token]
                logprob = float(logits[token] - np.logaddexp.reduce(logits)) if sampling.logprobs else None
                if token in engine.end_tokens:
                    self.finish_reason = "stop"
                yield Token(token, logprob)
                if self.finish_reason:
                    return
            self.finish_reason = "length"
        finally:
            engine.ended()


def choose(logits: np.ndarray, sampling: Sampling, position: int) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    noise = np.random.default_rng([sampling.seed, position]).gumbel(size=len(logits))
    return int((logits / sampling.temperature + noise).argmax())


def reference(prompt: Sequence[int], count: int, sampling: Sampling) -> list[int]:
    """The tokens that follow, each computed from the whole text before it, without a cache."""
    model, ids = decoder(), list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
        ids.append(choose(logits, sampling, len(ids)))
    return ids[len(prompt) :]


def text_of(tokens: Sequence[int]) -> str:
    """What the synthetic tokenizer's tokens say: one byte each, from 4 on, the printable ones of Latin-1 first; others are `` <ID>``."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [byte for byte in range(256) if byte not in printable]
    data = b"".join(bytes([order[token - 4]]) if 4 <= token < 260 else f" <{token}>".encode() for token in tokens)
    return data.decode("utf-8", "replace")
