"""What is measured and where: workload x target = spec, each with a canonical JSON form and a hash that is its identity."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

PLATFORMS = ("cpu", "cuda", "rocm", "mps", "openvino", "wasm", "webnn", "webgpu")
BROWSER_PLATFORMS = ("wasm", "webnn", "webgpu")
# int8: weights of matrix products, activations as they come. int4: their weights alone, in groups of 32 with a scale each.
PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int4")
MODES = ("inference", "training")  # training: one iteration is forward, backward and an optimizer step


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def identity(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model with its weights and the shape of the work asked of it.

    ``origin`` says where the weights come from and is part of the identity of a result: ``synthetic:SEED``,
    ``hub:ORGANISATION/NAME@REVISION``, ``folder:HASH`` or ``package:NAME==VERSION``.
    ``sequence_length`` is in tokens (prompt tokens for decoders; None where the model fixes its input size).
    ``new_tokens`` is the number of tokens generated per iteration, None for models that do not generate.
    """

    model_class: str
    size: str
    weights: str
    origin: str
    task: str
    batch_size: int = 1
    sequence_length: int | None = None
    new_tokens: int | None = None
    precision: str = "float32"
    mode: str = "inference"

    @property
    def hash(self) -> str:
        return identity(asdict(self))

    @property
    def label(self) -> str:
        """Short name for people: ``bert small float32``, with the mode where it is training."""
        parts = [self.model_class, self.size, self.precision, self.mode]
        return " ".join(part for part in parts if part != "inference")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a workload runs: platform, engine, device of that platform and, for web platforms, the browser's key.

    ``device`` is ``default`` or the platform's own name of one. Where a number of CPU threads was asked for, it is part of the device,
    ``2 threads`` or ``GPU.0, 2 threads``: with another number the same processor is another device.
    ``browser`` is a key of ``web.browsers`` such as ``chromium``, ``chromium-headless-shell`` or ``firefox``; its version is
    part of the environment, not of the identity, so that versions can be compared.
    """

    platform: str
    engine: str
    device: str = "default"
    browser: str | None = None

    @property
    def hash(self) -> str:
        return identity(asdict(self))

    @classmethod
    def with_threads(cls, device: str, threads: int | None) -> str:
        """The ``device`` of a target whose engine is given this number of threads (None: its default)."""
        if threads is None:
            return device
        return f"{threads} threads" if device == "default" else f"{device}, {threads} threads"

    @property
    def device_and_threads(self) -> tuple[str, int | None]:
        """The platform's name of the device, and the number of threads, None for the engine's default."""
        found = re.fullmatch(r"(?:(.+), )?(\d+) threads", self.device)
        return (found[1] or "default", int(found[2])) if found else (self.device, None)

    @property
    def label(self) -> str:
        """Short name for people: ``cpu · onnxruntime``, ``openvino``, ``webgpu · chromium``."""
        parts = [self.platform, self.browser or self.engine, self.device]
        return " · ".join(part for index, part in enumerate(parts) if part != "default" and part not in parts[:index])


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One thing to measure. Its hash identifies it across stores and machines."""

    workload: Workload
    target: Target

    @property
    def hash(self) -> str:
        return identity(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Spec:
        return cls(workload=Workload(**value["workload"]), target=Target(**value["target"]))
