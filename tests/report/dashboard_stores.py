"""Stores to look at in the dashboard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import campaign_fixture as fixture
import pyarrow as pa

from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.report.dashboard.synthetic import MACHINE, fill
from ipfs_accelerate_py.spec import Spec, Target, Workload, identity
from ipfs_accelerate_py.store import observed
from ipfs_accelerate_py.store.connection import connect
from ipfs_accelerate_py.store.exchange import import_
from ipfs_accelerate_py.store.quality import QualityRow, QualitySession, add_quality
from ipfs_accelerate_py.store.rows import SPOOL_SCHEMA, to_row
from ipfs_accelerate_py.store.writer import Store, _insert

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
PLATFORMS = {"cpu": "torch", "cuda": "torch", "rocm": "torch", "mps": "torch", "openvino": "openvino"}
PREDICTED = {
    "model_version": "1", "model": "bert small", "platform": "cpu", "engine": "torch", "device": "default", "browser": None,
    "new_tokens": None, "precision": "float32", "mode": "inference", "level": 0.9, "memory_bytes": 1e8, "reasons": [],
    "provenance": "predicted", "batch_size": 1, "sequence_length": 128, "regime": "new model",
}  # fmt: skip
# format -> bits per weight, what each of four windows lost in nats, whose format, its solver, bits per cached value
FORMATS = {
    "3 bits, gptq": (3.2, (0.05, 0.06, 0.05, 0.06), "ipfs_accelerate_py", "gptq", None),
    "2 bits, gptq": (2.3, (0.20, 0.24, 0.21, 0.22), "ipfs_accelerate_py", "gptq", None),
    "llama.cpp Q3_K, every matrix": (3.4, (0.07, 0.08, 0.06, 0.07), "llama.cpp", None, None),
    "another's 4 bits": (4.3, (0.01, -0.01, 0.02, 0.0), "another", "other", None),
    "cache of 4 and 2 bits": (32.0, (0.01, 0.02, 0.01, 0.02), "ipfs_accelerate_py", None, 4.0),
}
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
    campaign that found bert slower than before; a probe, predictions and perplexities."""
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
    add_beside_launches(path)
    return path


def add_beside_launches(path: Path) -> None:
    """A probe of the fixture's processor, predictions of a measured and of an unmeasured cell, and perplexities of all makers."""
    rates = [("matmul", 1e9, 2e11), ("bandwidth", 1e8, 1e10)]
    rows = [
        {"kind": kind, "precision": "float32", "size": size, "value": value, "samples_ns": [1], "facts": {}}
        for kind, size, value in rates
    ]
    observed.add_probe(path, fixture.TARGETS["torch"], fixture.MACHINE, fixture.ENVIRONMENT, rows)
    band = {"latency_ms": 25.0, "latency_low_ms": 18.0, "latency_high_ms": 40.0, "machine_hash": identity(fixture.MACHINE)}
    observed.add_predictions(path, [{**PREDICTED, **band}, {**PREDICTED, **band, "batch_size": 16}])
    for provenance in ("measured", "simulated"):
        add_perplexities(path, provenance)


def add_perplexities(path: Path, provenance: str = "measured", windows: int = 4) -> None:
    """The float weights of a llama and FORMATS on the same ``windows``."""
    nats = [3.0, 3.5, 4.0, 4.5][:windows]
    session = QualitySession(
        model="llama, 19.9 million weights",
        origin=f"folder:{provenance}",
        windows_sha256="0" * 64,
        machine=fixture.MACHINE,
        provenance=provenance,
    )
    rows = [QualityRow(format="float32", bits_per_weight=32.0, nats=nats, tokens=100 * windows, is_reference=True)]
    for name, (bits, lost, maker, solver, cached) in FORMATS.items():
        found = [value + more for value, more in zip(nats, lost, strict=False)]
        fields = {"made_by": maker, "solver": solver, "bits_per_cached_value": cached}
        rows.append(QualityRow(format=name, bits_per_weight=bits, nats=found, tokens=100 * windows, **fields))
    add_quality(path, session, rows)


def large(path: Path) -> Path:
    """The full store and a million samples more, of 4,000 launches on ten targets: half of their cells are said to be measured and
    checked (as other stores of these tests say it; nothing of it was), a twentieth were measured again a day later."""
    full(path)
    assert fill(path, 4000, 250) == 4000
    store = Store.create_or_open(path)
    again = store.begin_campaign({"launches": 0, "request": {}}, request_hash="again", command="ipfs-accelerate bench", seed=0)
    with connect(path, read_only=False) as connection:
        own = f"machine_hash = '{MACHINE}'"
        connection.execute(f"UPDATE launch SET provenance = 'measured' WHERE {own} AND hash(spec_hash) % 2 = 0")
        connection.execute(
            f"""INSERT INTO launch BY NAME SELECT * REPLACE (launch_id || '-again' AS launch_id, ? AS campaign_id,
            started_at + INTERVAL 1 DAY AS started_at) FROM launch WHERE {own} AND provenance = 'measured' AND hash(spec_hash) % 20 = 0""",
            [again],
        )
        connection.execute(
            f"INSERT INTO accuracy SELECT launch_id, 0.99999, 0.001, NULL, true, 'cosine' FROM launch WHERE {own} AND status = 'ok'"
        )
        assert connection.execute("SELECT sum(len(samples_ns)) FROM launch").fetchall()[0][0] > 1_000_000
    store.finish_campaign(again)
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
