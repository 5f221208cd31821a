"""Facts about NVIDIA GPUs, as the driver's own tool tells them."""

from __future__ import annotations

import os
import shutil
import subprocess


def query(subject: str, fields: tuple[str, ...]) -> list[dict[str, str | None]] | None:
    """``nvidia-smi --query-SUBJECT=FIELDS`` of the GPUs that CUDA shows this process, one dict a line; None where the tool is missing
    or refuses.

    A field that the GPU does not report ("[N/A]", "[Not Supported]") is None.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return []  # they hide all of them
    command = [
        tool,
        *([f"--id={visible}"] if visible else []),
        f"--query-{subject}={','.join(fields)}",
        "--format=csv,noheader,nounits",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return None
    rows = [[value.strip() for value in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
    return [
        {field: None if value.startswith("[") else value for field, value in zip(fields, row, strict=True)}
        for row in rows
        if len(row) == len(fields)
    ]


def whole(value: str | None, base: int = 10) -> int | None:
    return None if value is None else int(value, base)
