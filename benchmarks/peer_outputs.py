"""What transformers and transformers.js give, as the outputs of our graphs, so that both sides are held to one reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ipfs_accelerate_py.measure import accuracy
from ipfs_accelerate_py.measure.record import Accuracy
from ipfs_accelerate_py.spec import Workload


def pooled(outputs: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sentence embeddings that our graph has inside, of ``last_hidden_state``: mean over the text's tokens, length 1."""
    mask = inputs["attention_mask"][:, :, None]
    mean = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)
    return {"embeddings": (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)}


def checked(
    outputs: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    work: Workload,
    rows: int | None = None,
) -> Accuracy:
    """Their outputs against our reference: those that both have. Of a generation that is the tokens, as ``generate`` gives no scores."""
    found = pooled(outputs, inputs) if "embeddings" in reference else dict(outputs)
    wanted = {"token_ids": reference["token_ids"]} if "token_ids" in reference else reference
    return accuracy.check(found, wanted, work.precision, work.task, rows)
