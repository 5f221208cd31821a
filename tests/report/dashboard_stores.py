"""Stores to look at in the dashboard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import campaign_fixture as fixture
import pyarrow as pa

from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.connection import connect
from ipfs_accelerate_py.store.exchange import import_
from ipfs_accelerate_py.store.rows import SPOOL_SCHEMA, to_row
from ipfs_accelerate_py.store.writer import Store, _insert

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
PLATFORMS = {"cpu": "torch", "cuda": "torch", "rocm": "torch", "mps": "torch", "openvino": "openvino"}
BROWSERS = {"wasm": "firefox", "webnn": "chromium-headless-shell", "webgpu": "chromium"}


def add(
    path: Path, records: Iterable[LaunchRecord], *, end: bool = True, planned: int | None = None, simulate: bool = False
) -> str:
    """One more campaign of a store with these launches; ``end`` off leaves it unfinished."""
    store = Store.create_or_open(path)
    kept = list(records)
    plan = {"launches": len(kept) if planned is None else planned, "request": {"simulate": simulate, "launches": 5, "seed": 0}}
    campaign = store.begin_campaign(plan, request_hash="r", command="ipfs-accelerate bench --quick", seed=0)
    own = [
        replace(record, launch_id=f"{campaign}-{at}", campaign_id=campaign, order_index=at) for at, record in enumerate(kept)
    ]
    if own:
        table = pa.Table.from_pylist([to_row(record) for record in own], schema=SPOOL_SCHEMA)
        with connect(path, read_only=False) as connection:  # as an ingest does, without a file flushed for each launch
            _insert(connection, [table])
    if end:
        store.finish_campaign(campaign)
    return campaign


def full(path: Path) -> Path:
    """Reference data; failed, unsupported, wrong, unchecked and simulated cells; batch sizes and lengths; all classes and platforms; a
    campaign that found bert slower than before."""
    for folder in sorted(REFERENCE.glob("*/")):
        import_(path, folder)
    add(path, fixture.campaign(launches=7))
    torch = fixture.spec_of("bert", "torch")
    for day, median_ms in (("2026-11-22", 22.0), ("2026-11-29", 44.0), ("2026-11-30", 44.0)):
        add(path, [dated(fixture.launch(torch, index, median_ms, seed=day), day) for index in range(7)])
    sizes = [
        fixture.launch(
            fixture.spec_of("bert", "torch", batch_size=batch, sequence_length=length), index, 4.0 * batch * length / 32
        )
        for batch in (2, 4, 8)
        for length in (32, 64)
        for index in range(4)
    ]
    int8 = fixture.spec_of("bert", "onnxruntime", precision="int8")
    sizes += [fixture.launch(int8, index, 9.0, weights_bytes=24_000_000) for index in range(7)]
    sizes += [
        fixture.launch(fixture.spec_of("vit", "torch", precision="bfloat16"), index, 50.0, accuracy=None) for index in range(2)
    ]
    add(path, sizes)
    add(path, everywhere(), simulate=True)
    return path


def dated(record: LaunchRecord, day: str) -> LaunchRecord:
    return replace(record, started_at=f"{day}T05:00:00.000+00:00")


def everywhere() -> list[LaunchRecord]:
    """A simulated launch of all 13 classes on all eight platforms."""
    targets = [Target(platform=name, engine=engine) for name, engine in PLATFORMS.items()]
    targets += [Target(platform=name, engine="onnxruntime-web", browser=browser) for name, browser in BROWSERS.items()]
    work = {"size": "small", "weights": "synthetic", "origin": "synthetic:0", "task": "simulated"}
    specs = [Spec(workload=Workload(model_class=name, **work), target=target) for name in model_classes() for target in targets]
    return [fixture.launch(spec, 0, 10.0, provenance="simulated") for spec in specs]
