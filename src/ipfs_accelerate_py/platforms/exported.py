"""What no engine that runs exported graphs can do."""

from __future__ import annotations

from ..spec import Workload


def exported_unsupported(workload: Workload, engine: str) -> str | None:
    """Why an engine that runs ONNX files cannot do this work; None where the file says nothing against it."""
    if workload.mode != "inference":
        return f"{engine} does inference only, not {workload.mode}: {workload.mode} needs torch."
    if workload.precision == "bfloat16":
        return f"{engine} runs float32, float16, int8 and int4 files; bfloat16 needs torch."
    return None
