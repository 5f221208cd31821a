"""Whether a launch computed the right thing: its outputs against the float32 CPU reference on the same inputs.

A launch that fails is kept and never ranked: a fast wrong answer is not a result. One rule for each precision, the same on every platform:

    precision   cosine >=   relative error <=   equal tokens >=   because
    float32     0.9999      0.001               all               only the order of additions may differ, some 1e-5 through
                                                                  a whole model; a hundred times that is a wrong kernel
    float16     0.999       0.05                a quarter         2^-11 per rounding, more where sums are also kept in
                                                                  float16; a cosine of 0.999 is 4.5 % noise
    bfloat16    0.995       0.1                 none              2^-8 per rounding, eight times float16's, with sums in float32: 1 to
                                                                  2 % of noise through a model, and 10 % are allowed
    int8        0.95        0.3                 none              256 levels for weights and activations, the latter for a whole
                                                                  tensor, whose outliers cost 13 % of noise in MiniLM; a cosine of
                                                                  0.95 is 33 %, beyond which rankings of embeddings change
    int4        0.85        0.6                 none              16 levels for the weights of a group, whose largest is some 2.3
                                                                  standard deviations: steps of 0.29 of one, an error of 0.29 /
                                                                  sqrt(12) = 8.4 % in every product. Through a model that makes 16 to
                                                                  51 %; a cosine of 0.85 is 62 %. A broken product is beyond 70 %

The noise is what benchmarks/precision_errors.py prints: for float16 0.1 to 0.3 %. Random weights are the worst case, as nothing in them is
redundant, and at 4 bits it grows with depth (34 % in 2 layers of Llama, 51 % in 22). The broken 4-bit products are those of
tests/models/test_precision.py: halves of bytes swapped, another zero point, scales of the next group, a group left out. A fault in
one product of many may hide in the rounding of the others; the float32 run of the same platform is there to find it.

``cosine`` is the lowest over the outputs and the items of the batch; ``relative error`` is the highest over the outputs of
max|x - r| / max|r|. The noise of a cosine c is sqrt(1/c^2 - 1), root mean square relative to the signal.

A choice (the class of an image, of a box or of a frame of sound; the first token of a generation) is right when it is the reference's, or
when the reference's own score for it is within the relative error of its best: models with synthetic weights have many such ties. Later
tokens follow from the launch's own earlier ones, so one flip at a tie changes all that come after it; what is asked of them is therefore
loose, and at float16 still more than a broken key-value cache gives, which is right once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .record import Accuracy


@dataclass(frozen=True)
class Rule:
    cosine: float
    relative_error: float
    equal_tokens: float

    def text(self, precision: str) -> str:
        return (
            f"{precision}: cosine >= {self.cosine:g}, relative error <= {self.relative_error:g}, "
            f"choices equal or tied, equal tokens >= {self.equal_tokens:g}"
        )


DECIDE_BY_LOGITS = ("classification", "detection", "speech-recognition")  # ends of the names of tasks
RULES = {
    "float32": Rule(cosine=0.9999, relative_error=1e-3, equal_tokens=1.0),
    "float16": Rule(cosine=0.999, relative_error=0.05, equal_tokens=0.25),
    "bfloat16": Rule(cosine=0.995, relative_error=0.1, equal_tokens=0.0),
    "int8": Rule(cosine=0.95, relative_error=0.3, equal_tokens=0.0),
    "int4": Rule(cosine=0.85, relative_error=0.6, equal_tokens=0.0),
}


def check(
    outputs: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    precision: str,
    task: str,
    reference_rows: int | None = None,
) -> Accuracy:
    """Compare by the rule of ``precision``. Outputs that the reference lacks need only be finite.

    Integer outputs (``token_ids`` [batch, tokens]) are compared as tokens, all others as numbers. A task that decides by the arg-max
    of ``logits`` [..., classes] is one of DECIDE_BY_LOGITS: per image, per box (detection), per frame (CTC).
    ``reference_rows`` says that the reference has only the first so many items of the batch: those are compared, and the others need
    only be finite.
    """
    rule = RULES[precision]
    fault = _not_finite(outputs, reference)
    outputs = {name: np.asarray(array)[:reference_rows] if np.ndim(array) else array for name, array in outputs.items()}
    fault = fault or _incomparable(outputs, reference)
    if fault:
        return Accuracy(
            cosine=math.nan,
            relative_error=math.nan,
            top1_agreement=None,
            passed=False,
            rule=f"{rule.text(precision)}; failed: {fault}",
        )

    cosine, relative_error = 1.0, 0.0
    for name, right in reference.items():
        if not _is_tokens(right):
            x, r = np.asarray(outputs[name], dtype=np.float64), np.asarray(right, dtype=np.float64)
            cosine = min(cosine, _cosine(x, r))
            relative_error = max(relative_error, _relative_error(x, r))
    agreement = _agreement(outputs, reference, task)
    faults = []
    if cosine < rule.cosine:
        faults.append(f"cosine {cosine:.6g}")
    if relative_error > rule.relative_error:
        faults.append(f"relative error {relative_error:.3g}")
    if wrong := _wrong_choices(outputs, reference, task, rule.relative_error):
        faults.append(f"{wrong} wrong choices")
    if "token_ids" in reference and agreement is not None and agreement < rule.equal_tokens:
        faults.append(f"equal tokens {agreement:.3g}")
    return Accuracy(
        cosine=cosine,
        relative_error=relative_error,
        top1_agreement=agreement,
        passed=not faults,
        rule=rule.text(precision) + (f"; failed: {', '.join(faults)}" if faults else ""),
    )


def _not_finite(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> str | None:
    for arrays, whose in ((reference, "the reference's"), (outputs, "the")):
        for name, array in arrays.items():
            if not np.all(np.isfinite(array)):
                return f"{whose} output '{name}' has values that are not finite"
    return None


def _incomparable(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> str | None:
    if not reference:
        return "the reference has no outputs"
    for name, right in reference.items():
        if name not in outputs:
            return f"output '{name}' is missing"
        if np.shape(outputs[name]) != np.shape(right):
            return f"output '{name}' has shape {np.shape(outputs[name])}, the reference {np.shape(right)}"
        if _is_tokens(right) != _is_tokens(outputs[name]):
            return f"output '{name}' is {np.asarray(outputs[name]).dtype}, the reference {np.asarray(right).dtype}"
        if not _is_tokens(right) and not np.any(right):
            return f"the reference's output '{name}' has nothing but zeros"
    return None


def _is_tokens(array: np.ndarray) -> bool:
    return np.asarray(array).dtype.kind in "iu"


def _cosine(x: np.ndarray, r: np.ndarray) -> float:
    """Lowest over the items of the first axis. An item of zeros has a cosine of 0 with any other, 1 with itself."""
    x, r = (array.reshape(array.shape[0] if array.ndim > 1 else 1, -1) for array in (x, r))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(r, axis=1)
    same = np.all(x == r, axis=1)
    cosines = np.divide((x * r).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0)
    return float(np.where(same, 1.0, np.clip(cosines, -1, 1)).min())


def _relative_error(x: np.ndarray, r: np.ndarray) -> float:
    return float(np.abs(x - r).max() / np.abs(r).max())


def _agreement(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], task: str) -> float | None:
    """Share of equal tokens or classes; None where the task has neither."""
    if "token_ids" in reference:
        return float(np.mean(outputs["token_ids"] == reference["token_ids"]))
    if _decides(reference, task):
        return float(np.mean(outputs["logits"].argmax(axis=-1) == reference["logits"].argmax(axis=-1)))
    return None


def _decides(reference: Mapping[str, np.ndarray], task: str) -> bool:
    return task.endswith(DECIDE_BY_LOGITS) and "logits" in reference


def _wrong_choices(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], task: str, tolerance: float) -> int:
    """Choices whose score in the reference is below its best by more than ``tolerance`` of its largest magnitude."""
    if "logits" not in reference:
        return 0
    if "token_ids" in reference:
        choices = np.asarray(outputs["token_ids"])[:, 0]
    elif _decides(reference, task):
        choices = outputs["logits"].argmax(axis=-1)
    else:
        return 0
    scores = np.asarray(reference["logits"], dtype=np.float64)
    valid = (choices >= 0) & (choices < scores.shape[-1])
    chosen = np.take_along_axis(scores, np.where(valid, choices, 0)[..., None], axis=-1)[..., 0]
    behind = scores.max(axis=-1) - chosen > tolerance * np.abs(scores).max()
    return int(np.sum(behind | ~valid))
