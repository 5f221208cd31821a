"""The float32 reference: what a prepared model's outputs, or the first step of its training, should be, by torch.

It is computed on the CPU, except where a model of billions of parameters is to run on a GPU that holds it at float32: see
``forward_reference``, which goes another way than what it is the reference of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .base import ExportGraph, ModelClass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_FLOPS = 2e12  # of a reference; one that would take more is made of fewer items
CPU_FLOPS = 0.5e12  # a second, of a server's processor; only the estimate that is shown rests on it
TOKEN_VALUES = 768  # of an input that is not of tokens: a patch of 16 x 16 pixels in three colours
PASSES = {"inference": 2, "training": 6}  # operations a parameter and token: the backward pass costs two forward ones
LEAST_ROWS = {"inference": 1, "training": 2}  # a contrastive loss of one item is 0


def reference_rows(
    inputs: Mapping[str, np.ndarray], new_tokens: int | None, parameters: int, mode: str
) -> tuple[int | None, float]:
    """How many items at the start of the batch the reference is made of, None for all of them, and an estimate of its seconds.

    The estimate is 2 x parameters x tokens operations (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361), three times that in
    training, on the tokens of the inputs and the new ones. It bounds the cost and is no measurement.
    """
    batch = len(next(iter(inputs.values())))
    integers = max((array[0].size for array in inputs.values() if array.dtype.kind in "iub"), default=0)  # ids, and their mask
    values = sum(array[0].size for array in inputs.values() if array.dtype.kind == "f")
    flops = PASSES[mode] * parameters * (integers + values / TOKEN_VALUES + (new_tokens or 0))
    rows = min(batch, max(LEAST_ROWS[mode], int(MOST_FLOPS / flops)))
    return (None if rows == batch else rows), rows * flops / CPU_FLOPS


def first_rows(inputs: Mapping[str, np.ndarray], rows: int | None) -> dict[str, np.ndarray]:
    """The inputs of the first items of the batch, all for None."""
    return {name: array[:rows] for name, array in inputs.items()}


def reference_outputs(graphs: Mapping[str, ExportGraph], new_tokens: int | None) -> dict[str, np.ndarray]:
    """Outputs of a single-pass model by name; of a decoder ``token_ids`` int64 [batch, new_tokens], chosen greedily, and ``logits``
    float32 [batch, vocabulary] from which the first token was chosen."""
    with torch.inference_mode():
        if "decoder" in graphs:
            assert new_tokens is not None
            return _greedy(graphs, new_tokens)
        return {name: output.numpy() for name, output in _run(graphs["model"]).items()}


def forward_reference(
    model_class: ModelClass, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int
) -> dict[str, np.ndarray]:
    """Outputs of a decoder, as ``reference_outputs``, on whatever device the model is on, by transformers' own forward pass.

    A launch runs the graphs of ``modules.py`` (a cache of fixed length, a bias as mask) on the same device; this has transformers'
    growing cache, its masks and its merging of images, attention as plain products, and no TF32, which has 10 of float32's 23 bits.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = next(model.parameters()).device
    given = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    feeds: dict[str, Any] = model_class.forward_inputs(model.config, given)
    tokens: list[torch.Tensor] = []
    first: torch.Tensor | None = None
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), _exact_float32():
        while len(tokens) < new_tokens:
            outputs: Any = model(**feeds, use_cache=True, logits_to_keep=1)
            logits = outputs.logits[:, -1]
            first = logits if first is None else first
            tokens.append(logits.argmax(-1, keepdim=True))
            feeds = {"input_ids": tokens[-1], "past_key_values": outputs.past_key_values}
    assert first is not None
    return {"token_ids": torch.cat(tokens, 1).cpu().numpy(), "logits": first.cpu().numpy()}


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Products and convolutions of CUDA at float32 as IEEE has it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    allowed = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = allowed


def training_reference(
    model_class: ModelClass, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], of_first_rows: bool
) -> dict[str, np.ndarray]:
    """``loss`` and ``gradient_norm``, float32 [1], of the first step, before any weight has changed; with ``of_first_rows``, where the
    inputs are not the whole batch, under names that say so."""
    loss = model_class.loss(model, {name: torch.from_numpy(array) for name, array in inputs.items()})
    loss.backward()
    outputs = step_outputs(loss, gradient_norm(model.parameters()), of_first_rows)
    model.zero_grad(set_to_none=True)
    return outputs


def step_outputs(loss: torch.Tensor, norm: torch.Tensor, of_first_rows: bool = False) -> dict[str, np.ndarray]:
    """Two scalars on any device as the outputs of a training step."""
    prefix = "first_rows_" if of_first_rows else ""
    scalars = {"loss": loss, "gradient_norm": norm}
    return {prefix + name: value.detach().float().reshape(1).cpu().numpy() for name, value in scalars.items()}


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Euclidean length of the gradient of all parameters together, a scalar on their device."""
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _run(graph: ExportGraph, tensors: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    tensors = tensors or {name: torch.from_numpy(array) for name, array in graph.inputs.items()}
    outputs = graph.module(*tensors.values())
    return dict(zip(graph.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def _greedy(graphs: Mapping[str, ExportGraph], new_tokens: int) -> dict[str, np.ndarray]:
    decoder = graphs["decoder"]
    states = {name: torch.from_numpy(array) for name, array in decoder.inputs.items()}
    for name, graph in graphs.items():
        if name != "decoder":
            states |= _run(graph)
    tokens: list[torch.Tensor] = []
    first: torch.Tensor | None = None
    while len(tokens) < new_tokens:
        outputs = _run(decoder, states)
        logits = outputs.pop("logits")
        first = logits if first is None else first
        tokens.append(logits.argmax(-1, keepdim=True))
        states |= {name.replace("present.", "past."): state for name, state in outputs.items()}
        states |= {"input_ids": tokens[-1], "positions": states["positions"][-1:] + 1}
    assert first is not None
    return {"token_ids": torch.cat(tokens, 1).numpy(), "logits": first.numpy()}
