"""Cells that differ in one thing alone, compared each with each as one family: browsers, precisions, engines, versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError, nearest
from .compare import Comparison, compare_all
from .history import software
from .record import LaunchRecord

OF_TARGET = ("platform", "engine", "device", "browser")
OF_WORKLOAD = ("precision", "batch_size", "sequence_length", "size", "weights")
ALTERNATIVES = (*OF_TARGET, *OF_WORKLOAD, "target", "version", "machine")
TOGETHER = {"target": OF_TARGET, "platform": OF_TARGET}  # another platform has other engines and browsers


@dataclass(frozen=True)
class Pair:
    """``a`` against ``b``, alternatives of ``by``; all else is ``cell``."""

    by: str
    cell: str
    a: str
    b: str
    comparison: Comparison


def compare_by(records: Sequence[LaunchRecord], by: str) -> list[Pair]:
    """Every two alternatives of ``by`` for which all else is equal, as one family (``compare_all``).

    ``by`` is one of ALTERNATIVES; ``version`` is the software that ran, ``target`` everything about where. Launches that did not end well
    or failed their output check take no part, nor do simulated ones beside measured ones. UserError where nothing can be compared.
    """
    if by not in ALTERNATIVES:
        raise nearest(by, ALTERNATIVES, "thing to compare by")
    good = [record for record in records if record.status == "ok" and (record.accuracy is None or record.accuracy.passed)]
    groups: dict[str, dict[str, list[LaunchRecord]]] = {}
    for record in good:
        rest, alternative = _split(record, by)
        groups.setdefault(rest, {}).setdefault(alternative, []).append(record)
    pairs = {}
    for rest, alternatives in groups.items():
        names = sorted(alternatives)
        for index, a in enumerate(names):
            for b in names[index + 1 :]:
                launches = ([each.samples_ns for each in alternatives[name]] for name in (a, b))
                pairs[rest, a, b] = tuple(launches)
    if not pairs:
        raise UserError(f"No two cells here differ in their {by} alone: measure another {by}, or compare by something else.")
    compared = compare_all(pairs)  # type: ignore[arg-type]
    return [Pair(by, rest, a, b, comparison) for (rest, a, b), comparison in compared.items()]


def _split(record: LaunchRecord, by: str) -> tuple[str, str]:
    """What must be equal, and the alternative, both as text."""
    workload: dict[str, Any] = asdict(record.spec.workload)
    target: dict[str, Any] = asdict(record.spec.target)
    everything = {**workload, **target, "provenance": record.provenance, "machine": str(record.machine.get("machine_id"))}
    everything["machine"] += (
        f" {record.machine.get('cpu_model')} {[gpu.get('name') for gpu in record.machine.get('gpus') or []]}"
    )
    if by == "version":
        alternative = ", ".join(f"{name} {version}" for name, version in sorted(software(record).items()))
    else:
        names = TOGETHER.get(by, (by,))
        alternative = " · ".join(str(everything.pop(name)) for name in names if everything.get(name) is not None)
        for name in names:
            everything.pop(name, None)
    if by in ("size", "weights"):
        everything.pop("origin", None)
    return json.dumps(everything, sort_keys=True), alternative
