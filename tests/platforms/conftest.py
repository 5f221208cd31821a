"""One run per case, model and precision, whose outcome all tests of the suite look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from platform_cases import CASES, MARKS, MODEL_CLASSES, Case, expected_failure

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.platforms.base import Coverage, Memory, OpenOptions, RemoteSession, Sample, Session, Unavailable
from ipfs_accelerate_py.platforms.registry import platform, probe
from ipfs_accelerate_py.spec import Workload

LIMITS_S = {"default": 120.0}


@dataclass
class Outcome:
    """What one session did. ``again`` is what a second iteration returned; None where the session only times it."""

    workload: Workload
    outputs: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    again: dict[str, np.ndarray] | None
    tokens: int  # how many were announced
    memory: Memory
    coverage: Coverage | None
    facts: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{name}(*platforms, reason, models, raises): {meaning}; must fail")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=lambda case: case.id)
    if "model_class" in metafunc.fixturenames:
        metafunc.parametrize("model_class", MODEL_CLASSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters and isinstance(case := parameters.params.get("case"), Case):
            failure = expected_failure(item.iter_markers(), case, parameters.params.get("model_class"))
            if failure is not None:
                item.add_marker(failure)


@pytest.fixture(scope="session")
def run_case(prepared: Any, workload_of: Any) -> Callable[[Case, str, str], Outcome]:
    """``run_case(case, model_class, precision)``, each run once; skips where the platform is unavailable or says "unsupported"."""
    outcomes: dict[tuple[Case, str, str], Outcome] = {}

    def run(case: Case, model_class: str, precision: str) -> Outcome:
        skip_unless_available(case)
        work = workload_of(model_class, precision=precision)
        if reason := platform(case.platform).unsupported(work, case.engine):
            pytest.skip(reason)
        key = (case, model_class, precision)
        if key not in outcomes:
            try:
                outcomes[key] = _run(case, work, prepared(model_class, precision=precision))
            except LaunchError as error:
                if error.error_class != "unsupported":
                    raise
                pytest.skip(f"{case.id}: {error}")  # what only the device itself can say, such as an adapter without float16
        return outcomes[key]

    return run


@pytest.fixture
def outcome(run_case: Any, case: Case, model_class: str) -> Outcome:
    """The float32 run of this case and model."""
    return run_case(case, model_class, "float32")


_probe = cache(probe)


def skip_unless_available(case: Case) -> None:
    found = _probe(case.platform)
    if isinstance(found, Unavailable):
        pytest.skip(f"{case.platform}: {found.reason} {found.remedy}".strip())
    if case.browser is not None and case.browser not in [device.name for device in found.devices]:
        pytest.skip(f"{case.platform}: {case.browser} is not available here.")
    if case.engine not in found.engines:
        pytest.skip(f"{case.platform}: the engine {case.engine} is not installed.")


def _run(case: Case, work: Workload, folder: Any) -> Outcome:
    inputs, reference = load_tensors(folder / "inputs.npz"), load_tensors(folder / "reference.npz")
    options = OpenOptions(folder=folder, engine=case.engine, browser=case.browser, inputs=inputs, limits_s=LIMITS_S)
    session = platform(case.platform).open(work, "default", options)
    try:
        if isinstance(session, RemoteSession):
            session.timed_phases()
            sample, outputs = session.timed_first()
            samples, again, tokens = session.timed_samples(2), None, len(sample.token_ns)
        else:
            session.load()
            session.compile()
            announced: list[None] = []
            outputs = _iteration(session, work, inputs, lambda: announced.append(None))
            samples, tokens = [], len(announced)
            again = _iteration(session, work, inputs, lambda: None)
        return Outcome(
            workload=work,
            outputs=outputs,
            reference=reference,
            again=again,
            tokens=tokens,
            memory=session.memory(),
            coverage=session.coverage(),
            facts=session.facts(),
            samples=samples,
        )
    finally:
        session.close()


def _iteration(session: Session, work: Workload, inputs: Any, on_token: Callable[[], None]) -> dict[str, np.ndarray]:
    outputs = session.infer(inputs) if work.new_tokens is None else session.generate(inputs, work.new_tokens, on_token)
    session.synchronize()
    return outputs
