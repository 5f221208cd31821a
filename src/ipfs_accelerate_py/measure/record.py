"""What one launch leaves behind: raw samples and what is needed to believe them. Nothing here is a summary."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..platforms.base import Coverage
from ..spec import Spec

STATUSES = ("ok", "failed", "unsupported")
PROVENANCES = ("measured", "simulated")  # a prediction is never a launch


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Outputs against the float32 CPU reference on the same inputs. The rule that gives ``passed`` is in ``measure/accuracy.py``.

    ``cosine`` is the lowest over outputs, ``relative_error`` the highest of max|x-r| / max|r|, ``top1_agreement`` the share of
    equal arg-max classes or generated tokens (None for embeddings). The first two are not-a-number where the outputs
    cannot be compared: ``rule`` says why.
    """

    cosine: float
    relative_error: float
    top1_agreement: float | None
    passed: bool
    rule: str


@dataclass(frozen=True, kw_only=True)
class LaunchRecord:
    """One launch: one fresh process, or one fresh browser profile, running one spec.

    Times are nanoseconds. ``phases_ns`` has fetch, load, compile, first_inference, warm_up and steady, as far as the launch came.
    ``samples_ns`` are the steady iterations, ``warm_up_ns`` those before. For generation, ``first_token_ns`` and
    ``per_token_ns`` hold, per steady iteration, the time to the first token and the mean time of each later one.
    ``steady`` is False where the warm-up test never passed; ``stop_reason`` is ``precision`` or ``cap``.
    """

    launch_id: str  # UUIDv7
    campaign_id: str
    spec: Spec
    launch_index: int  # of this spec: 0, 1, ...
    order_index: int  # position in the campaign's interleaved order
    started_at: str  # ISO 8601, UTC
    duration_s: float
    provenance: str
    status: str
    error_class: str | None = None
    error_message: str | None = None
    error_phase: str | None = None
    phases_ns: dict[str, int] = field(default_factory=dict)
    warm_up_ns: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    first_token_ns: tuple[int, ...] = ()
    per_token_ns: tuple[int, ...] = ()
    steady: bool | None = None
    stop_reason: str | None = None
    clock_resolution_ns: int | None = None
    accuracy: Accuracy | None = None
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    weights_bytes: int | None = None
    coverage: Coverage | None = None
    software_adapter: bool | None = None  # None where the platform has no adapter
    bytes_read_back: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # what the session says ran: adapter, threads, engine version
    noise: dict[str, Any] = field(default_factory=dict)  # before and after, from measure/noise.py
    machine: dict[str, Any] = field(default_factory=dict)  # the machine's fingerprint, from measure/machine.py
    environment: dict[str, Any] = field(default_factory=dict)  # versions of everything that ran

    @classmethod
    def begin(
        cls, campaign_id: str, spec: Spec, launch_index: int, order_index: int, provenance: str = "measured"
    ) -> LaunchRecord:
        """The record of a launch that begins now. It has failed until it is replaced by what happened."""
        return cls(
            launch_id=uuid7(),
            campaign_id=campaign_id,
            spec=spec,
            launch_index=launch_index,
            order_index=order_index,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            duration_s=0.0,
            provenance=provenance,
            status="failed",
        )


def uuid7() -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits, so that identifiers sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (7 << 76)
    value = (value & ~(0x3 << 62)) | (2 << 62)
    return str(uuid.UUID(int=value))
