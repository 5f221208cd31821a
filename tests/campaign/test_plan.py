"""What a request becomes: cells, reasons, and an order in which no target is favoured."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipfs_accelerate_py.campaign.estimate import estimate
from ipfs_accelerate_py.campaign.plan import Request, interleave, make_plan
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms.base import Available, Device, Unavailable

CPU = Available((Device("default", "a processor"),), ("torch", "onnxruntime"))
NO_GPU = Unavailable("There is no GPU.", "Buy one.")
WEB = Available(
    (
        Device("default", "one", {"browser": "chromium"}),
        Device("default", "the same without a window", {"browser": "chromium-headless-shell"}),
        Device("default", "another", {"browser": "firefox"}),
    ),
    ("onnxruntime-web",),
    {"unavailable_browsers": {"edge": {"reason": "Edge is not installed.", "remedy": "Install it."}}},
)


def labels(plan) -> set[str]:
    """Model and target of each cell that would run."""
    return {f"{spec.workload.model_class} {spec.target.label}" for spec in plan.specs.values()}


def test_models_cross_targets_and_what_is_missing_keeps_its_reason() -> None:
    """Every cell either runs or says why not."""
    request = Request(models=("bert", "vit"), sizes=("tiny",), platforms=("cpu", "cuda"))
    plan = make_plan(request, {"cpu": CPU, "cuda": NO_GPU})
    assert labels(plan) == {f"{model} cpu · {engine}" for model in ("bert", "vit") for engine in ("torch", "onnxruntime")}
    assert {(cell.spec.workload.model_class, cell.reason, cell.remedy) for cell in plan.impossible} == {
        ("bert", "There is no GPU.", "Buy one."),
        ("vit", "There is no GPU.", "Buy one."),
    }


def test_a_precision_that_an_engine_lacks_is_a_reason_not_a_launch() -> None:
    """Torch runs no int8 here; onnxruntime does."""
    plan = make_plan(Request(models=("bert",), sizes=("tiny",), platforms=("cpu",), precisions=("int8",)), {"cpu": CPU})
    assert labels(plan) == {"bert cpu · onnxruntime"}
    assert ["int8" in cell.reason for cell in plan.impossible] == [True]


def test_training_is_for_torch() -> None:
    """Both modes are cells; an engine that does not train says so."""
    request = Request(models=("llama",), sizes=("tiny",), platforms=("cpu",), modes=("inference", "training"))
    plan = make_plan(request, {"cpu": CPU})
    assert Counter((spec.workload.mode, spec.target.engine) for spec in plan.specs.values()) == {
        ("inference", "torch"): 1,
        ("inference", "onnxruntime"): 1,
        ("training", "torch"): 1,
    }
    assert [cell.spec.workload.mode for cell in plan.impossible] == ["training"]
    assert {spec.workload.new_tokens is None for spec in plan.specs.values() if spec.workload.mode == "training"} == {True}
    assert {spec.workload.label for spec in plan.specs.values()} == {"llama tiny float32", "llama tiny float32 training"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), {"chromium", "firefox"}),
        (("all",), {"chromium", "chromium-headless-shell", "firefox"}),
        (("chromium-headless-shell",), {"chromium-headless-shell"}),
    ],
)
def test_browsers(asked: tuple[str, ...], expected: set[str]) -> None:
    """By default the headless shell is left out where a full Chromium offers the same."""
    request = Request(models=("bert",), sizes=("tiny",), platforms=("wasm",), browsers=asked)
    assert {spec.target.browser for spec in make_plan(request, {"wasm": WEB}).specs.values()} == expected


def test_a_browser_that_was_named_and_is_missing_says_why() -> None:
    """Asking for Edge where there is none gives its reason, and nothing runs in its place."""
    request = Request(models=("bert",), sizes=("tiny",), platforms=("wasm",), browsers=("edge",))
    plan = make_plan(request, {"wasm": WEB})
    assert not plan.specs
    assert [(cell.spec.target.browser, cell.reason) for cell in plan.impossible] == [("edge", "Edge is not installed.")]


def test_lengths_that_a_model_lacks_make_no_second_cell() -> None:
    """vit has no sequence length: two lengths are one cell for it, two for bert."""
    request = Request(
        models=("bert", "vit"), sizes=("tiny",), platforms=("cpu",), engines=("onnxruntime",), sequence_lengths=(8, 16)
    )
    plan = make_plan(request, {"cpu": CPU})
    assert Counter(spec.workload.model_class for spec in plan.specs.values()) == {"bert": 2, "vit": 1}


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 99))
def test_interleaving_is_complete_balanced_and_seeded(launches: dict[str, int], seed: int) -> None:
    """Each launch once, in rounds: no spec has its next launch before all others with launches left have had theirs."""
    order = interleave(launches, seed)
    assert sorted(order) == sorted((spec, index) for spec, count in launches.items() for index in range(count))
    assert [index for _, index in order] == sorted(index for _, index in order)
    assert order == interleave(dict(reversed(launches.items())), seed)


def test_software_adapters_have_fewer_launches() -> None:
    """WebGPU in the browser that reports a software adapter, and only there."""
    devices = tuple(
        Device("default", name, {"browser": name, "webgpu": {"software_adapter": software}})
        for name, software in (("chromium", True), ("firefox", None))
    )
    found = Available(devices, ("onnxruntime-web",), {"unavailable_browsers": {}})
    request = Request(models=("bert",), sizes=("tiny",), platforms=("webgpu",), launches=4, software_launches=1)
    plan = make_plan(request, {"webgpu": found})
    assert Counter(plan.specs[key].target.browser for key, _ in plan.order) == {"chromium": 1, "firefox": 4}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"platforms": ("webgu",)}, "Unknown platform 'webgu': did you mean webgpu"),
        ({"browsers": ("fire fox",)}, "Unknown browser 'fire fox': did you mean firefox"),
        ({"engines": ("onnx",)}, "Unknown engine 'onnx'"),
        ({"precisions": ("fp32",)}, "Unknown precision 'fp32'"),
        ({"modes": ("train",)}, "Unknown mode 'train': did you mean training"),
        ({"batch_sizes": (0,)}, "batch size of 0"),
        ({"launches": 0}, "--launches 0"),
        ({"models": ("brt",)}, "Unknown model 'brt': did you mean bert"),
        ({"models": ("bert",), "sequence_lengths": (100_000,)}, "takes at most"),
    ],
)
def test_mistakes_are_one_sentence(wrong: dict, sentence: str) -> None:
    """The first mistake is named, with the nearest names."""
    with pytest.raises(UserError) as caught:
        make_plan(Request(**{"sizes": ("tiny",), "platforms": ("cpu",), **wrong}), {"cpu": CPU})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_estimate_rests_on_launches_that_were_timed() -> None:
    """Known specs use their own median, known targets theirs; what was never seen is counted, not guessed."""
    plan = make_plan(Request(models=("bert", "vit"), sizes=("tiny",), platforms=("cpu",), launches=2), {"cpu": CPU})
    bert_torch = next(s for s in plan.specs.values() if s.workload.model_class == "bert" and s.target.engine == "torch")
    row = {"spec_hash": bert_torch.hash, "platform": "cpu", "engine": "torch", "browser": None}
    past = [{**row, "duration_s": seconds} for seconds in (1.0, 3.0, 2.0)] + [{**row, "spec_hash": "other", "duration_s": 7.0}]
    expected = estimate(plan, past)
    assert expected.unknown == 4  # both models on onnxruntime, two launches each
    assert expected.seconds == 2 * 2.0 + 2 * 2.5  # vit on torch: the median of all four launches on that target
