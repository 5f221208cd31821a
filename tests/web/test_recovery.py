"""What recovery decides, without a browser: the four modes, the order of steps down, the pause after many failures."""

from __future__ import annotations

from typing import Any

import pytest

from ipfs_accelerate_py.errors import ERROR_CLASSES, LaunchError
from ipfs_accelerate_py.models.prepared import Graph
from ipfs_accelerate_py.web import errors
from ipfs_accelerate_py.web.limits import TooLargeError, check_adapter, check_threshold, largest_weight
from ipfs_accelerate_py.web.recovery import CircuitBreaker, Options, Plan, Recovery

PLAN = Plan("webgpu", "chromium", "float32", 8, None)
PRECISIONS = {"webgpu": ("float32", "float16", "int4"), "webnn": ("float32",), "wasm": ("float32", "int8", "int4")}


def options(**changes: Any) -> Options:
    return Options(
        **{"precisions": PRECISIONS.__getitem__, "missing": lambda name: None, "browsers": (), "generates": False, **changes}
    )


def after(mode: str, error_class: str, plan: Plan = PLAN, retries: int = 0, rows: int = 1, **changes: Any) -> Any:
    return Recovery(mode, sleep=lambda seconds: None).after(
        plan, LaunchError(error_class, "it broke"), retries, rows, options(**changes)
    )


def test_abort_does_nothing():
    """The first failure is the caller's, whatever it was."""
    assert all(after("abort", kind) is None for kind in ERROR_CLASSES)


def test_retry_repeats_the_same_and_never_steps_down():
    """Three times with growing pauses, then no more; what would only repeat itself not even once."""
    waits: list[float] = []
    recovery = Recovery("retry", sleep=waits.append)
    error = LaunchError("browser_crashed", "gone")
    steps = [recovery.after(PLAN, error, retries, 1, options()) for retries in range(4)]
    assert [step and step[0] for step in steps] == [PLAN, PLAN, PLAN, None]
    assert waits == sorted(waits)
    assert len(waits) == 3
    assert after("retry", "unsupported") is None
    assert after("retry", "out_of_memory") is None


def test_fallback_steps_down_at_once_and_auto_after_one_retry():
    """The same crash: fallback moves to WebNN, auto repeats first."""
    plan, step = after("fallback", "device_lost")
    assert (plan.platform, step.action, step.because) == ("webnn", "platform", "it broke")
    plan, step = after("auto", "device_lost")
    assert (plan, step.action) == (PLAN, "retry")
    plan, step = after("auto", "device_lost", retries=1)
    assert plan.platform == "webnn"


def test_engines_go_from_webgpu_to_webnn_to_wasm_and_the_missing_is_passed_over():
    """What the browser lacks is left out, and the reason says so; after wasm there is nothing."""
    plan, step = after("fallback", "unsupported", missing=lambda name: "no backend" if name == "webnn" else None)
    assert plan.platform == "wasm"
    assert "webnn was passed over: no backend" in step.because
    assert after("fallback", "unsupported", Plan("wasm", "chromium", "float32", 8)) is None


def test_a_precision_that_the_next_engine_lacks_is_changed_with_it():
    """float16 on WebGPU becomes float32 on WebNN, and the step names both."""
    plan, step = after("fallback", "device_lost", Plan("webgpu", "chromium", "float16", 8))
    assert (plan.platform, plan.precision) == ("webnn", "float32")
    assert (step.before, step.after) == ("webgpu float16", "webnn float32")


def test_weights_of_few_bits_move_to_the_next_width_of_the_next_engine():
    """int2 becomes int4 on wasm, not float32; and no failure of memory leads to 3 or 2 bits unasked."""
    plan, step = after(
        "fallback", "unsupported", Plan("webgpu", "chromium", "int2", 8), missing=lambda name: "no" * (name == "webnn")
    )
    assert (plan.platform, plan.precision, step.before) == ("wasm", "int4", "webgpu int2")
    usable = {**PRECISIONS, "webgpu": ("float32", "int4", "int3", "int2")}
    step = after("auto", "out_of_memory", Plan("webgpu", "chromium", "int4", 1), precisions=usable.__getitem__)
    assert step[1].action == "platform"


def test_memory_gives_way_in_order_batch_precision_context_engine():
    """Each step is the smallest that helps; a retry would not."""
    plan, actions = Plan("webgpu", "chromium", "float32", 4, 512), []
    recovery = Recovery("auto", CircuitBreaker(failures=1000), sleep=lambda seconds: None)
    while step := recovery.after(plan, LaunchError("out_of_memory", "full"), 0, 4, options(generates=True)):
        plan = step[0]
        actions.append((step[1].action, step[1].after))
    assert actions == [
        ("batch_size", 2),
        ("batch_size", 1),
        ("precision", "float16"),
        ("precision", "int4"),
        ("context_length", 256),
        ("context_length", 128),
        ("platform", "webnn float32"),
        ("platform", "wasm float32"),
        ("precision", "int8"),
        ("precision", "int4"),
    ]


def test_a_browser_that_does_not_start_gives_way_to_another():
    """The next installed one, and none where there is no other."""
    plan, step = after("fallback", "browser_start", browsers=("firefox",))
    assert (plan.browser, step.action) == ("firefox", "browser")
    assert after("fallback", "browser_start") is None


def test_the_circuit_opens_after_five_failures_in_a_minute_and_closes_again():
    """By a clock of the test: five slow failures do not open it, five quick ones do, for the pause."""
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0])
    for _ in range(5):
        now[0] += 20
        breaker.failed(PLAN)
    assert breaker.open_for_s(PLAN) == 0
    for _ in range(4):
        now[0] += 1
        breaker.failed(PLAN)
    assert breaker.open_for_s(PLAN) == 30
    assert breaker.open_for_s(Plan("wasm", "chromium", "float32", 8)) == 0
    now[0] += 31
    assert breaker.open_for_s(PLAN) == 0


def test_an_open_circuit_ends_retries():
    """What keeps failing is not tried again even where the mode would."""
    recovery = Recovery("retry", CircuitBreaker(failures=1), sleep=lambda seconds: None)
    assert recovery.after(PLAN, LaunchError("timeout", "slow"), 0, 1, options()) is None


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_failure_becomes_an_error_with_a_way_out(error_class: str):
    """Message, class, severity and at least one action, for each class that a page can report."""
    error = errors.from_launch_error(LaunchError(error_class, "It broke."), platform="wasm")
    assert isinstance(error, errors.WebPlatformError)
    assert error.message == "It broke."
    assert error.details == {"error_class": error_class, "platform": "wasm"}
    assert error.recovery_actions
    assert error.severity == "error"


def test_the_kinds_of_errors_are_those_of_the_contract():
    """Six kinds below one; memory and devices are hardware, downloads are the model."""
    kinds = {"out_of_memory": errors.HardwareError, "load_failed": errors.ModelError, "timeout": errors.WebRuntimeError}
    kinds |= {"unsupported": errors.BrowserCompatibilityError, "browser_crashed": errors.WebRuntimeError}
    for error_class, kind in kinds.items():
        assert type(errors.from_launch_error(LaunchError(error_class, "x"))) is kind


def test_a_weight_above_the_binding_limit_is_refused_with_the_arithmetic(product):
    """4 x 3 float32 are 48 bytes; an adapter that binds 40 cannot have them, one that binds 48 can."""
    from ipfs_accelerate_py.models.export import describe

    graphs = {"model": describe(product / "model.onnx")}
    assert largest_weight(product / "model.onnx") == ("w", (4, 3), 48)
    check_adapter(product, graphs, {"maxStorageBufferBindingSize": 48, "maxBufferSize": 1000})
    with pytest.raises(TooLargeError, match=r"'w' is 4 x 3 = 12 values in 0\.0 MB"):
        check_adapter(product, graphs, {"maxStorageBufferBindingSize": 40, "maxBufferSize": 1000})


def test_weights_above_the_memory_threshold_are_refused_with_the_sum():
    """Two components, their sum, and the limit in one sentence."""
    part = Graph(files=(), sha256=(), bytes=30_000_000, inputs=(), outputs=())
    check_threshold({"encoder": part, "decoder": part}, 60, "float32")
    with pytest.raises(TooLargeError, match=r"encoder 30\.0 MB \+ decoder 30\.0 MB = 60\.0 MB, above memory_threshold_mb = 50"):
        check_threshold({"encoder": part, "decoder": part}, 50, "float32")
