"""Times of a chain on an engine: enough runs to trust a median, in a fraction of a second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...platforms.base import OpenOptions, RemoteSession
from ...platforms.registry import platform
from ...spec import Target
from .onnx_folder import workload, write
from .plan import CHAINS, Chain

LEAST_RUNS, MOST_RUNS, SECONDS = 5, 200, 0.4
WARM_UP_RUNS = 3
COPIED_BYTES = 16_777_216


def repeat(run: Callable[[], Any], seconds: float = SECONDS) -> list[int]:
    """Nanoseconds of each run, after a warm-up: at least LEAST_RUNS, then until the time is up."""
    for _ in range(WARM_UP_RUNS):
        run()
    times: list[int] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or (time.perf_counter() < end and len(times) < MOST_RUNS):
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return times


def graph_times(target: Target, chains: tuple[Chain, ...] = CHAINS) -> tuple[dict[Chain, list[int]], dict[str, Any]]:
    """Times of every chain on a target that runs ONNX graphs, and what the engine says of itself. LaunchError where one fails."""
    times: dict[Chain, list[int]] = {}
    facts: dict[str, Any] = {}
    device, threads = target.device_and_threads
    for chain in chains:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            inputs = write(chain, folder)
            options = OpenOptions(folder=folder, engine=target.engine, browser=target.browser, threads=threads, inputs=inputs)
            session: Any = platform(target.platform).open(workload(), device, options)
            try:
                if isinstance(session, RemoteSession):
                    times[chain] = _remote(session)
                else:
                    session.load()
                    session.compile()
                    times[chain] = repeat(partial(session.infer, inputs))
                facts = session.facts()
            finally:
                session.close()
    return times, facts


def _remote(session: RemoteSession) -> list[int]:
    """In the page, which runs without waiting for Python."""
    session.timed_phases()
    first, _ = session.timed_first()
    slow = first.total_ns * LEAST_RUNS > 20 * SECONDS * 1e9  # compiling shaders can be most of a first run
    warm = session.timed_samples(1 if slow else WARM_UP_RUNS)
    typical = max(1, warm[-1].total_ns)
    count = min(MOST_RUNS, max(2 if slow else LEAST_RUNS, int(SECONDS * 1e9 / typical)))
    return [sample.total_ns for sample in session.timed_samples(count)]


def torch_times(target: Target, chains: tuple[Chain, ...], precision: str) -> tuple[dict[Chain, list[int]], dict[str, Any]]:
    """The same chains by torch, eagerly, on the device that the platform's sessions use; the result is read back each time."""
    from ...platforms.processor import default_threads
    from ...platforms.torch_session import import_torch

    torch = import_torch()
    _, threads = target.device_and_threads
    place = _torch_place(target)
    name = place.partition(":")[0]
    dtype = getattr(torch, precision)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or default_threads())
    if name == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False  # as the sessions have it
    times: dict[Chain, list[int]] = {}
    try:
        for chain in chains:
            weights = [torch.from_numpy(array).to(place, dtype) for array in chain.weights()]
            given = torch.from_numpy(chain.inputs()).to(dtype)

            def run(weights: list[Any] = weights, given: Any = given) -> Any:
                with torch.inference_mode():
                    value = given.to(place)
                    for each in weights:
                        value = value @ each
                    return value.cpu()

            times[chain] = repeat(run)
    finally:
        torch.set_num_threads(before)
    return times, _facts(torch, place, threads or default_threads())


def _torch_place(target: Target) -> str:
    """torch's name of the device that the platform's sessions use."""
    device, _ = target.device_and_threads
    return {"cuda": "cuda", "rocm": "cuda", "mps": "mps"}.get(target.platform, "cpu") if device == "default" else device


def torch_copies(target: Target) -> list[dict[str, Any]]:
    """Rows of the copies between the host and the target's device."""
    from ...platforms.torch_session import import_torch

    return copies(import_torch(), _torch_place(target))


def copies(torch: Any, place: str, size: int = COPIED_BYTES) -> list[dict[str, Any]]:
    """Rows of the ``probe`` table: bytes a second into the memory of the device ``place`` and out of it, from pageable memory, as sessions
    copy."""
    here = torch.zeros(size, dtype=torch.uint8)
    there = here.to(place, copy=True)

    def into() -> None:
        here.to(place, copy=True)
        if place.startswith("cuda"):
            torch.cuda.synchronize()

    def out() -> None:
        there.to("cpu", copy=True)

    rows = []
    for kind, run in (("copy_to_device", into), ("copy_from_device", out)):
        samples = repeat(run)
        row = {"kind": kind, "precision": "uint8", "size": float(size), "value": size / (min(samples) * 1e-9)}
        rows.append(row | {"samples_ns": samples, "facts": {}})
    return rows


def _facts(torch: Any, place: str, threads: int) -> dict[str, Any]:
    named = {"device_name": torch.cuda.get_device_name(place)} if place.startswith("cuda") else {}
    return {"torch": torch.__version__, "threads": threads, **named}
