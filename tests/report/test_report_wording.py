"""Numbers, names and commands as people read them."""

from __future__ import annotations

import shlex

import campaign_fixture as fixture
import pytest

from ipfs_accelerate_py.measure.statistics import Interval
from ipfs_accelerate_py.report.data import flatten
from ipfs_accelerate_py.report.wording import bounds, listed, model_labels, repeat_command, rounded, size_of, target_labels


@pytest.mark.parametrize(
    ("value", "interval", "number", "limits"),
    [
        (13.6234, (13.2, 14.1), "13.6", "[13.2, 14.1]"),
        (1168.3, (1140.0, 1200.0), "1,170", "[1,140, 1,200]"),
        (0.012345, (0.0123, 0.0124), "0.01235", "[0.01230, 0.01240]"),
        (90.4, (86.0, 95.0), "90", "[86, 95]"),
        (22.1, (18.0, 1400.0), "20", "[20, 1,400]"),
        (5.0, None, "5.00", "no interval"),
        (float("nan"), None, "n/a", "no interval"),
        (0.0, None, "0", "no interval"),
    ],
)
def test_a_figure_is_as_precise_as_its_interval(value: float, interval: tuple | None, number: str, limits: str):
    """Digits follow the interval's width; without one there are three."""
    given = Interval(*interval) if interval else None
    assert (rounded(value, given), bounds(given)) == (number, limits)


def test_lists_and_sizes():
    """A list is a sentence's, and what is over the limit is counted."""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 3) == "a, b, c and 5 more"
    assert (size_of(91_000_000), size_of(1_310_000_000), size_of(None)) == ("91 MB", "1.31 GB", "n/a")


def test_labels_tell_workloads_and_targets_apart():
    """Only where names would be the same is more said."""
    flat = [flatten(fixture.launch(fixture.spec_of("bert", "torch", batch_size=size), 0, 1.0)) for size in (1, 8)]
    flat.append(flatten(fixture.launch(fixture.spec_of("vit", "torch"), 0, 1.0)))
    assert list(model_labels(flat).values()) == ["bert small · batch 1", "bert small · batch 8", "vit small"]
    second = {**flat[0], "target_hash": "other", "device": "cuda:1"}
    assert list(target_labels([flat[0], second]).values()) == ["cpu · torch", "cpu · torch · cuda:1"]


def test_the_command_repeats_the_run():
    """Every field of the spec and of the request that shapes it is a flag."""
    flat = flatten(fixture.launch(fixture.spec_of("llama", "webgpu-firefox"), 0, 1.0))
    command = repeat_command(flat, {"launches": 7, "seed": 3, "quick": True}, 5)
    assert command == (
        "ipfs-accelerate bench --models llama --size small --weights synthetic --platforms webgpu --browsers firefox "
        "--engines onnxruntime-web --batch-sizes 1 --sequence-lengths 64 --new-tokens 32 --precisions float32 "
        "--launches 7 --seed 3 --quick"
    )


def test_the_command_names_a_hub_model_or_a_folder_and_quotes_it():
    """A hub id keeps its revision; a folder is the one that was asked for; a shell reads it as one word."""
    flat = flatten(fixture.launch(fixture.spec_of("bert", "torch"), 0, 1.0))
    hub = shlex.split(repeat_command({**flat, "origin": "hub:organisation/name@abc", "weights": "trained"}, {}, 5))
    assert hub[hub.index("--models") + 1] == "organisation/name@abc" and "--size" not in hub
    folder = shlex.split(repeat_command({**flat, "origin": "folder:1234"}, {"models": ["bert", "./a model; rm"]}, 5))
    assert folder[folder.index("--models") + 1] == "./a model; rm"
