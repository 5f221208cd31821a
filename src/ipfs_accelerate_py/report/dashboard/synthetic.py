"""A large simulated store, for measuring the dashboard and testing it at size. Every launch in it is marked as simulated."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from ...models.registry import model_classes
from ...spec import Spec, Target, Workload
from ...store.connection import connect
from ...store.writer import Store

TARGETS = (
    Target(platform="cpu", engine="torch"),
    Target(platform="cpu", engine="onnxruntime"),
    Target(platform="openvino", engine="openvino"),
    Target(platform="cuda", engine="torch"),
    Target(platform="wasm", engine="onnxruntime-web", browser="chromium"),
    Target(platform="wasm", engine="onnxruntime-web", browser="firefox"),
    Target(platform="webnn", engine="onnxruntime-web", browser="chromium-headless-shell"),
    Target(platform="webgpu", engine="onnxruntime-web", browser="chromium"),
    Target(platform="webgpu", engine="onnxruntime-web", browser="firefox"),
    Target(platform="webgpu", engine="onnxruntime-web", browser="edge"),
)
LAUNCHES_PER_SPEC = 5  # at least: a store of more launches than the specs below take has more of each

MACHINE = "simulated-machine"

_SPECS = "CREATE TEMP TABLE asked (spec_hash VARCHAR, workload_hash VARCHAR, target_hash VARCHAR, level DOUBLE)"
# Times: the spec's level, 3 % between launches, up to 8 % between iterations; one cell in 40 fails.
_LAUNCHES = """
    INSERT INTO launch BY NAME
    SELECT
        format('{}-{}-{}', $campaign, spec_hash, launch_index) AS launch_id, $campaign AS campaign_id, spec_hash,
        $machine AS machine_hash, 'simulated-environment' AS environment_hash,
        launch_index, row_number() OVER () AS order_index,
        TIMESTAMP '2026-01-01' + to_seconds(row_number() OVER ()) AS started_at, 1.0 AS duration_s, 'simulated' AS provenance,
        CASE WHEN hash(spec_hash) % 40 = 0 THEN 'failed' ELSE 'ok' END AS status,
        CASE WHEN hash(spec_hash) % 40 = 0 THEN 'timeout' END AS error_class,
        CASE WHEN hash(spec_hash) % 40 = 0 THEN 'simulated failure' END AS error_message,
        MAP {'start': 60000000, 'load': 300000000, 'compile': 400000000, 'first_inference': (level * 2)::BIGINT} AS phases_ns,
        []::BIGINT[] AS warm_up_ns,
        CASE WHEN hash(spec_hash) % 40 = 0 THEN []::BIGINT[] ELSE list_transform(
            range($samples), lambda i: (level * (0.985 + hash(spec_hash, launch_index) % 1000 / 33333.0)
                * (1 + hash(spec_hash, launch_index, i) % 1000 / 12500.0))::BIGINT
        ) END AS samples_ns,
        []::BIGINT[] AS first_token_ns, []::BIGINT[] AS per_token_ns, true AS steady, 'cap' AS stop_reason,
        600000000 AS host_peak_bytes, 91000000 AS weights_bytes, '{}'::JSON AS facts, '{}'::JSON AS noise
    FROM asked, range($launches) AS launch (launch_index)
"""


def fill(path: Path, launches: int, samples_per_launch: int) -> int:
    """Make a store of at least that many simulated launches at ``path``, or add them to the one there; returns their number."""
    store = Store.create_or_open(path)
    plan = {"launches": launches, "request": {"simulate": True}}
    campaign = store.begin_campaign(plan, request_hash="simulated", command="ipfs-accelerate bench --simulate", seed=0)
    every = _specs()
    specs = every[: -(-launches // LAUNCHES_PER_SPEC)]
    per_spec = max(LAUNCHES_PER_SPEC, -(-launches // len(every)))
    with connect(path, read_only=False) as connection:
        connection.execute("BEGIN")
        connection.execute(
            f"""INSERT INTO machine VALUES ('{MACHINE}', '{{"machine_id": "simulated"}}') ON CONFLICT DO NOTHING"""
        )
        connection.execute("INSERT INTO environment VALUES ('simulated-environment', '{}') ON CONFLICT DO NOTHING")
        for table, parts in (
            ("workload", {s.workload.hash: s.workload for s in specs}),
            ("target", {s.target.hash: s.target for s in specs}),
        ):
            rows = [[hash_, *vars(part).values()] for hash_, part in parts.items()]
            marks = ", ".join("?" * len(rows[0]))
            names = ", ".join([f"{table}_hash", *vars(next(iter(parts.values())))])
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING", rows)
        connection.execute(_SPECS)
        rows = [
            [s.hash, s.workload.hash, s.target.hash, 2e6 * s.workload.batch_size**0.8 * (1 + index % 10)]
            for index, s in enumerate(specs)
        ]
        connection.executemany("INSERT INTO asked VALUES (?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO spec SELECT spec_hash, workload_hash, target_hash FROM asked")
        connection.execute(
            _LAUNCHES, {"campaign": campaign, "samples": samples_per_launch, "launches": per_spec, "machine": MACHINE}
        )
        connection.execute("COMMIT")
    store.finish_campaign(campaign)
    return len(specs) * per_spec


def _specs() -> list[Spec]:
    """Every model class at several precisions and batch sizes on every target, the targets of one piece of work together."""
    shapes = product(("float32", "float16", "int8", "int4"), (1, 2, 4, 8, 16, 32, 64, 128, 256), model_classes())
    work: dict[str, Any] = {"size": "base", "weights": "synthetic", "origin": "synthetic:0", "task": "simulated"}
    return [
        Spec(workload=Workload(model_class=model, batch_size=batch_size, precision=precision, **work), target=target)
        for precision, batch_size, model in shapes
        for target in TARGETS
    ]
