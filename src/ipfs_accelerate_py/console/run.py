"""``run``: one model on one input in a browser, tokens as they come where it generates."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..errors import UnavailableError, UserError
from ..models.registry import model_classes, resolve
from ..web.errors import WebPlatformError
from ..web.platform import UnifiedWebPlatform
from ..web.served_model import Progress
from ..web.web_model import types_of

_SHOWN = 8  # numbers of an embedding at the terminal


def run(
    model: str,
    inputs: Mapping[str, list[str]],
    *,
    as_json: bool,
    max_new_tokens: int | None,
    simulate: bool,
    listen: str,
    configuration: Mapping[str, Any],
    **options: Any,
) -> None:
    """Run ``model`` on what was given and print the result, or what is to be done."""
    given: dict[str, Any] = {kind: values[0] if len(values) == 1 else values for kind, values in inputs.items() if values}
    kind = model_classes()[resolve(model, configuration.get("size"), configuration.get("weights", "auto")).model_class]
    if not given:
        raise UserError(f"Nothing to run on: {kind.name} takes {' and '.join(f'--{name}' for name in kind.raw_inputs)}.")
    if "video" in given:
        given["video"] = [_frames(folder) for folder in inputs["video"]]
    options["web_api_mode"] = "simulation" if simulate else "real"
    options["model_type"] = types_of(kind)[0]
    told = Console(stderr=True)
    try:
        with UnifiedWebPlatform(model, configuration=configuration, listen=listen, **options) as platform:
            for finding in platform.validation.errors:
                told.print(f"{finding.severity}: {finding.message}", highlight=False, soft_wrap=True)
            platform.model.preprocess(given)  # a mistake is told before a browser starts
            with told.status("Opening the browser ...") as status:
                platform.load(lambda progress: status.update(_said(progress)))
            if platform.model.generates and not as_json and all(len(values) <= 1 for values in inputs.values()):
                _stream(platform, given, max_new_tokens, told)
            else:
                _whole(platform, given, max_new_tokens, as_json, told)
    except WebPlatformError as error:
        if isinstance(error, UserError):
            raise
        raise UnavailableError(error.message, " ".join(error.recovery_actions[:1])) from error


def _stream(platform: UnifiedWebPlatform, given: Mapping[str, Any], max_new_tokens: int | None, told: Console) -> None:
    count, last_ms = 0, 0.0
    for token in platform.stream(given, max_new_tokens=max_new_tokens):
        sys.stdout.write(token.text)
        sys.stdout.flush()
        count, last_ms = token.index + 1, token.ms
    sys.stdout.write("\n")
    _tell(platform.describe(), f"{count} tokens in {last_ms:.0f} ms", told)


def _whole(
    platform: UnifiedWebPlatform, given: Mapping[str, Any], max_new_tokens: int | None, as_json: bool, told: Console
) -> None:
    answer = platform.run_inference(given, max_new_tokens=max_new_tokens)
    if as_json:
        print(json.dumps(answer, default=_jsonable, ensure_ascii=False, indent=1))
        return
    for name, value in answer["result"].items():
        print(f"{name}: {_short(value)}")
    _tell(answer["metadata"], f"{answer['performance']['inference_ms']:.0f} ms in the page, one run", told)


def _tell(metadata: Mapping[str, Any], timing: str, told: Console) -> None:
    """What ran, on standard error, so that a pipe gets the answer alone."""
    where = [metadata["platform"], metadata["browser"], metadata["browser_version"], metadata["adapter"], metadata["precision"]]
    parts = [" · ".join(filter(None, where)), f"{metadata['weights']} weights", timing]
    if metadata["software_adapter"]:
        parts.insert(1, "software adapter")
    if metadata["provenance"] == "simulated":
        parts.insert(0, "SIMULATED, no browser ran")
    told.print("; ".join(parts), highlight=False, soft_wrap=True)
    for step in metadata["degradations"]:
        told.print(
            f"recovery: {step['action']} {step['before']} -> {step['after']}: {step['because']}", highlight=False, markup=False
        )


def _frames(folder: str) -> list[Path]:
    """The frames of a video, which is a folder of images in the order of their names."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"A video is a folder of its frames as image files; '{folder}' is no folder.")
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def _said(progress: Progress) -> str:
    size = f" {progress.loaded_bytes / 1e6:.0f} of {progress.total_bytes / 1e6:.0f} MB" if progress.total_bytes else ""
    return f"{progress.phase}: {progress.component}{size}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        numbers = ", ".join(f"{number:.4g}" for number in value.ravel()[:_SHOWN])
        return f"{' x '.join(map(str, value.shape))} [{numbers}{', ...' if value.size > _SHOWN else ''}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(part)}" for key, part in value.items()) + "}"
    return json.dumps(value, default=_jsonable, ensure_ascii=False)
