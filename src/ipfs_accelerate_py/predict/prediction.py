"""What a prediction says: values with their intervals, how they are known, and why they are as wide as they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

REGIMES = ("measured", "interpolated", "new model", "new device", "datasheet")
LEVEL = 0.9


@dataclass(frozen=True)
class Interval:
    """A value with the interval that holds it with a probability of ``level``."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    def scaled(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor, self.level)

    def inverse(self, numerator: float) -> Interval:
        """Of ``numerator`` over the value: the bounds change places."""
        return Interval(numerator / self.value, numerator / self.high, numerator / self.low, self.level)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one workload on one device.

    ``regime`` says how it is known: ``measured`` (these launches are in the store: their median, and ``provenance`` is then measured),
    ``interpolated`` (this model was measured on this device at other sizes), ``new model`` (the device was measured with other
    models), ``new device`` (only its ceilings were probed) or ``datasheet`` (not even those). Times are of one iteration in
    milliseconds, throughput is items a second. ``machine`` is the hash that stores have, or the name of a datasheet; ``machine_name`` is
    for people: the GPU or the processor. ``energy_j`` is of an iteration, with what it rests on in
    ``energy_reason`` and ``energy_provenance`` measured or predicted; or None with the reason. ``reasons`` are sentences.
    """

    model: str
    platform: str
    engine: str
    device: str
    browser: str | None
    machine: str | None
    batch_size: int
    sequence_length: int | None
    new_tokens: int | None
    precision: str
    mode: str
    latency_ms: Interval
    throughput_per_s: Interval
    time_to_first_token_ms: Interval | None
    time_per_output_token_ms: Interval | None
    memory_bytes: Interval
    energy_j: Interval | None
    energy_reason: str
    regime: str
    provenance: str
    model_version: str
    reasons: tuple[str, ...] = field(default=())
    machine_name: str = ""
    software_adapter: bool = False
    energy_provenance: str | None = None
    memory_provenance: str = "predicted"  # also where the time was measured: peaks are not taken from a store

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Somewhere that predictions can be made for, and how it is known: ``measured``, ``probed`` or ``datasheet``."""

    machine: str | None
    platform: str
    engine: str
    device: str
    browser: str | None
    precision: str
    known: str
    name: str
    memory_bytes: int | None = None
    software_adapter: bool = False
