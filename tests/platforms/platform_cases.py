"""The cases of the suite that every platform runs, and the marks for what a case cannot do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from ipfs_accelerate_py.models.registry import model_classes

MARKS = {
    "notimpl": "we have not written it yet",
    "notyet": "the engine does not offer it yet",
    "never": "it cannot be",
}


@dataclass(frozen=True)
class Case:
    """One way to run a model: where, with which engine and, for web platforms, in which browser."""

    platform: str
    engine: str
    browser: str | None = None

    @property
    def id(self) -> str:
        return f"{self.platform}-{self.browser or self.engine}"


CASES = (
    Case("cpu", "torch"),
    Case("cpu", "onnxruntime"),
    Case("cuda", "torch"),
    Case("rocm", "torch"),
    Case("mps", "torch"),
    Case("openvino", "openvino"),
    Case("wasm", "onnxruntime-web", "chromium"),
    Case("wasm", "onnxruntime-web", "firefox"),
    Case("webgpu", "onnxruntime-web", "chromium"),
    Case("webgpu", "onnxruntime-web", "firefox"),
    Case("webnn", "onnxruntime-web", "chromium-headless-shell"),
)
MODEL_CLASSES = tuple(model_classes())


def expected_failure(marks: Iterable[pytest.Mark], case: Case, model_class: str | None) -> pytest.MarkDecorator | None:
    """The strict xfail for this case, or None. A mark names platforms or cases (``openvino``, ``webgpu-firefox``), needs a
    ``reason``, and may narrow itself to ``models`` and to the exception that it ``raises``.

    Raises UsageError for a mark without a reason and for a name that is no platform, case or model.
    """
    known = {case.platform for case in CASES} | {case.id for case in CASES}
    for mark in marks:
        if mark.name not in MARKS:
            continue
        if not mark.kwargs.get("reason"):
            raise pytest.UsageError(f"@{mark.name}{mark.args} needs a reason.")
        if unknown := set(mark.args) - known or not mark.args:
            raise pytest.UsageError(f"@{mark.name}: {unknown} is none of the platforms and cases {sorted(known)}.")
        models = mark.kwargs.get("models", MODEL_CLASSES)
        if unknown := set(models) - set(MODEL_CLASSES):
            raise pytest.UsageError(f"@{mark.name}: {unknown} is none of the models {MODEL_CLASSES}.")
        if {case.platform, case.id} & set(mark.args) and (model_class is None or model_class in models):
            why = f"{mark.name} ({MARKS[mark.name]}): {mark.kwargs['reason']}"
            return pytest.mark.xfail(reason=why, raises=mark.kwargs.get("raises"), strict=True)
    return None
