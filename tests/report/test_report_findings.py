"""What may be said about a campaign, and what may not."""

from __future__ import annotations

import io
from dataclasses import replace

import campaign_fixture as fixture
import pytest
from rich.console import Console

from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.report.cells import cells, rankings
from ipfs_accelerate_py.report.findings import findings, verdict
from ipfs_accelerate_py.report.summary import print_summary


def series(target: str, median_ms: float | None, launches: int = 5, seed: str = "", **changes: object) -> list[LaunchRecord]:
    return [fixture.launch(fixture.spec_of("bert", target), index, median_ms, seed, **changes) for index in range(launches)]


def ranking_of(*records: list[LaunchRecord]):
    return rankings(cells(fixture.data([record for group in records for record in group])))[0]


def test_a_clear_winner_is_named_with_its_advantage():
    """Twice as fast in five launches each: best, with ratio, interval and the one it was compared with."""
    ranking = ranking_of(series("torch", 20.0), series("openvino", 10.0))
    assert ranking.best is not None and ranking.best.target == "openvino"
    said = verdict(ranking)
    assert "openvino (10" in said and "× faster [" in said and "than cpu · torch" in said
    assert ranking.comparisons[0].ratio == pytest.approx(2.0, rel=0.05)


def test_overlapping_series_have_no_winner():
    """A small difference under a large spread between launches is not decided, and nobody is called best."""
    ranking = ranking_of(series("torch", 10.0, spread=0.2), series("openvino", 10.8, spread=0.2))
    assert ranking.best is None and not ranking.equal
    assert verdict(ranking).startswith("not decided between")


def test_equal_series_are_called_equal():
    """Within 3 % of one another beyond doubt: equal, which is more than not decided."""
    ranking = ranking_of(series("torch", 10.0, spread=0.0005), series("openvino", 10.01, spread=0.0005))
    assert ranking.best is None and ranking.equal
    assert "equal within 3 %" in verdict(ranking)


def test_too_few_launches_decide_nothing():
    """One launch a side cannot show that anything is faster, however far apart they are."""
    assert ranking_of(series("torch", 90.0, 1), series("openvino", 10.0, 1)).best is None


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"provenance": "simulated"}, "simulated", "1 are simulated"),
        ({"accuracy": None}, "unchecked", "1 had no output check"),
        ({"status": "failed", "samples_ns": ()}, "failed", "1 failed"),
    ],
)
def test_what_is_not_a_checked_measurement_is_never_ranked(changes: dict, kind: str, word: str):
    """However fast it is."""
    data = fixture.data([*series("torch", 20.0), *series("openvino", 1.0, **changes)])
    assert {cell.kind for cell in cells(data)} == {"measured", kind}
    [ranking] = rankings(cells(data))
    assert [cell.target for cell in ranking.order] == ["cpu · torch"]
    assert word in findings(data)[2]
    assert "openvino" not in findings(data)[0]


def test_one_wrong_output_keeps_the_whole_cell_out():
    """Four right launches do not outvote one whose output check does not pass."""
    right = series("openvino", 10.0)
    wrong = replace(right[4], accuracy=replace(right[4].accuracy, passed=False))
    [cell] = cells(fixture.data([*right[:4], wrong]))
    assert cell.kind == "inaccurate" and "output wrong" in cell.marks


def test_measured_and_simulated_launches_of_one_spec_are_two_cells():
    """They share neither a median nor a row."""
    data = fixture.data([*series("torch", 20.0), *series("torch", 1.0, seed="s", provenance="simulated")])
    assert sorted(cell.kind for cell in cells(data)) == ["measured", "simulated"]


def test_machines_are_not_pooled():
    """Launches of one spec from two machines are two cells in two rankings, and the labels say which machine."""
    other = {**fixture.MACHINE, "machine_id": "ffff00001111"}
    found = cells(fixture.data([*series("torch", 20.0), *series("torch", 10.0, seed="o", machine=other)]))
    assert len(found) == 2 == len(rankings(found))
    assert any("ffff00" in cell.model for cell in found)


def test_a_software_adapter_is_named_and_marked():
    """Its time carries the mark wherever it stands, and the findings say that it is not a GPU's."""
    data = fixture.data(series("webgpu-chromium", 5.0))
    assert "(5" in findings(data)[0] and "sw" in findings(data)[0]
    assert "software adapter (SwiftShader)" in findings(data)[1] and "never a GPU's" in findings(data)[1]


def test_all_platforms_unavailable():
    """Nothing measured and nothing there: the sentences say so and name the platforms."""
    gone = tuple({"name": name, "available": False, "reason": "r", "remedy": ""} for name in ("cuda", "webgpu"))
    said = findings(fixture.data([], platforms=gone))
    assert len(said) == 3 and "Nothing has been measured" in said[0] and "cuda and webgpu" in said[2]


def test_every_launch_failed():
    """No best platform is named, the failures are counted."""
    said = findings(fixture.data(series("torch", None)))
    assert "no best platform" in said[0] and "0 of 5 launches gave samples" in said[2] and "1 failed" in said[2]


def test_a_cell_that_was_not_planned_is_no_launch():
    """The row of what cannot run counts as a cell, not among the launches."""
    row = fixture.launch(
        fixture.spec_of("vit", "webnn"), 0, None, status="unsupported", error_class="unsupported", error_phase="plan"
    )
    said = findings(fixture.data([*series("torch", 10.0), row]))[2]
    assert "5 of 5 launches" in said and "1 cannot run here" in said


def test_not_a_number_is_no_sample():
    """Samples that are no finite numbers are left out; a launch without any other gives no result."""
    [cell] = cells(fixture.data(series("torch", 10.0, samples_ns=(float("nan"), float("inf")))))
    assert cell.median is None and cell.kind == "failed"


def test_the_terminal_summary_shows_every_cell_and_reason():
    """Medians with intervals, reasons of failures with markup taken literally, and what is not available."""
    out = io.StringIO()
    failed = series("wasm-firefox", None, error_message="[bold]not markup[/bold]")
    print_summary(fixture.data([*series("torch", 20.0), *failed]), Console(file=out, width=160))
    text = out.getvalue()
    assert "cpu · torch" in text and "[bold]not markup[/bold]" in text and "5/5" in text and "0/5" in text
    assert "MPS exists on macOS only." in text
