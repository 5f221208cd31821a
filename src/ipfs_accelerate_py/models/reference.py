"""The float32 CPU reference: what a prepared model's outputs should be, by torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .base import ExportGraph


def reference_outputs(graphs: Mapping[str, ExportGraph], new_tokens: int | None) -> dict[str, np.ndarray]:
    """Outputs of a single-pass model by name; of a decoder ``token_ids`` int64 [batch, new_tokens], chosen greedily, and ``logits``
    float32 [batch, vocabulary] from which the first token was chosen."""
    with torch.inference_mode():
        if "decoder" in graphs:
            assert new_tokens is not None
            return _greedy(graphs, new_tokens)
        return {name: output.numpy() for name, output in _run(graphs["model"]).items()}


def _run(graph: ExportGraph) -> dict[str, torch.Tensor]:
    outputs = graph.module(*(torch.from_numpy(array) for array in graph.inputs.values()))
    return dict(zip(graph.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def _greedy(graphs: Mapping[str, ExportGraph], new_tokens: int) -> dict[str, np.ndarray]:
    decoder = graphs["decoder"]
    states = {name: torch.from_numpy(array) for name, array in decoder.inputs.items()}
    if "encoder" in graphs:
        states |= _run(graphs["encoder"])
    tokens: list[torch.Tensor] = []
    first: torch.Tensor | None = None
    while len(tokens) < new_tokens:
        outputs = dict(zip(decoder.outputs, decoder.module(*states.values()), strict=True))
        logits = outputs.pop("logits")
        first = logits if first is None else first
        tokens.append(logits.argmax(-1, keepdim=True))
        states |= {name.replace("present.", "past."): state for name, state in outputs.items()}
        states |= {"input_ids": tokens[-1], "positions": states["positions"][-1:] + 1}
    assert first is not None
    return {"token_ids": torch.cat(tokens, 1).numpy(), "logits": first.numpy()}
