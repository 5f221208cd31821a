"""Launches of the language-model benchmarks as the store has them, so that compare, report and dashboard see them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from language_models.sides import Run, Shape

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store


class Records:
    """A campaign of one run of a benchmark; every launch is in the store when ``add`` returns."""

    def __init__(self, store: Store, campaign: str) -> None:
        self._store, self._campaign = store, campaign
        self._orders = 0

    def add(self, work: Workload, target: Target, index: int, shape: Shape, found: Run | LaunchError) -> None:
        record = LaunchRecord.begin(self._campaign, Spec(workload=work, target=target), index, self._orders)
        record = replace(record, machine=machine.fingerprint(), environment=machine.environment())
        self._orders += 1
        if isinstance(found, LaunchError):
            record = replace(record, error_class=found.error_class, error_message=str(found))
        else:
            first = tuple(round(1e9 * each) for each in found.first_token_s)
            token = tuple(round(1e9 * each) for each in found.token_s)
            whole = tuple(a + (shape.new_tokens - 1) * b for a, b in zip(first, token, strict=True))
            phases = {**found.phases_ns, "steady": sum(whole)}
            record = replace(
                record,
                status="ok",
                duration_s=sum(phases.values()) / 1e9,
                phases_ns=phases,
                samples_ns=whole,
                first_token_ns=first,
                per_token_ns=token,
                stop_reason="cap",  # so many generations as were asked for
                software_adapter=(found.facts.get("device") or {}).get("software_adapter"),
                bytes_read_back=found.facts.get("bytes_read_back"),
                facts=found.facts,
            )
        spool(record, self._store.spool_folder)
        self._store.ingest()


@contextmanager
def recorded(path: Path | None, name: str, plan: dict[str, Any], seed: int) -> Iterator[Records | None]:
    """None without a store."""
    if path is None:
        yield None
        return
    store = Store.create_or_open(path)
    with store.campaign_lock():
        campaign = store.begin_campaign({"benchmark": name, **plan}, request_hash=name, command=" ".join(sys.argv), seed=seed)
        yield Records(store, campaign)
        store.finish_campaign(campaign)


def our_target(browser: str, *, activations: str, key_bits: int, value_bits: int, packed_down: bool, **prompts: Any) -> Target:
    """What changes the answer or its cost is part of the engine's name, as another configuration is another thing to compare."""
    parts = [
        "" if activations == "float" else activations,
        "packed" if packed_down else "",
        "" if prompts.get("prefill_arithmetic", "float32") == "float32" else f"{prompts['prefill_arithmetic']} prompts",
        "" if key_bits == value_bits == 16 else f"cache of {key_bits} and {value_bits} bits",
    ]
    return Target(platform="webgpu", engine=", ".join(["wgsl", *filter(None, parts)]), browser=browser)
