"""Cells that differ in one thing, as one family; and one cell over its campaigns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.families import compare_by
from ipfs_accelerate_py.measure.history import history
from ipfs_accelerate_py.measure.record import Accuracy, LaunchRecord
from ipfs_accelerate_py.spec import Spec, Target, Workload

WORKLOAD = Workload(model_class="bert", size="small", weights="synthetic", origin="synthetic:0", task="embedding")
PASSED = Accuracy(cosine=1.0, relative_error=0.0, top1_agreement=None, passed=True, rule="cosine >= 0.99")


def launches(
    ms: float, browser: str = "firefox", campaign: str = "c", n: int = 6, seed: int = 0, **changes: Any
) -> list[LaunchRecord]:
    """``n`` launches of about ``ms`` milliseconds, 1 % apart, in a browser on wasm."""
    generator = np.random.default_rng(seed)
    spec = Spec(
        workload=changes.pop("workload", WORKLOAD), target=Target(platform="wasm", engine="onnxruntime-web", browser=browser)
    )
    values = {
        "status": "ok",
        "accuracy": PASSED,
        "machine": {"machine_id": "m"},
        "environment": {"packages": {"torch": "2.12"}},
    } | changes
    found = []
    for index in range(n):
        samples = tuple(int(1e6 * ms * factor) for factor in generator.normal(1, 0.01) * generator.normal(1, 0.002, 10))
        found.append(replace(LaunchRecord.begin(campaign, spec, index, index), samples_ns=samples, **values))
    return found


def test_browsers_are_compared_each_with_each() -> None:
    """Three browsers make three pairs; the one that is half as fast is called slower, the twins are not told apart."""
    records = launches(10, "chromium", seed=1) + launches(10, "edge", seed=2) + launches(20, "firefox", seed=3)
    pairs = {(pair.a, pair.b): pair.comparison for pair in compare_by(records, "browser")}
    assert pairs["chromium", "firefox"].verdict == pairs["edge", "firefox"].verdict == "faster"
    assert pairs["chromium", "edge"].verdict in ("equal", "not decided")
    assert pairs["chromium", "firefox"].ratio == pytest.approx(0.5, rel=0.05)


def test_p_values_are_adjusted_over_the_whole_family() -> None:
    """The same two cells have a larger adjusted p among many equal ones than alone."""
    pair = launches(10, "a", seed=1) + launches(10.6, "b", seed=2)
    alone = compare_by(pair, "browser")[0].comparison
    crowd = pair + [record for index in range(6) for record in launches(10, f"x{index}", seed=10 + index)]
    among = next(each.comparison for each in compare_by(crowd, "browser") if (each.a, each.b) == ("a", "b"))
    assert among.p_value == alone.p_value and among.adjusted_p > alone.adjusted_p


def test_versions_are_told_by_what_ran() -> None:
    """The same cell with another torch: the alternative names both versions."""
    records = launches(10, seed=1) + launches(13, seed=2, environment={"packages": {"torch": "2.13"}})
    (pair,) = compare_by(records, "version")
    assert ("2.12" in pair.a, "2.13" in pair.b) == (True, True)
    assert pair.comparison.verdict == "faster"


def test_what_differs_in_two_things_is_not_compared() -> None:
    """Another browser at another batch size is another piece of work."""
    records = launches(10, "a") + launches(10, "b", workload=replace(WORKLOAD, batch_size=4))
    with pytest.raises(UserError, match="No two cells here differ in their browser alone"):
        compare_by(records, "browser")


def test_failed_checks_and_simulations_take_no_part() -> None:
    """Of a failed output check nothing is compared, and simulated times only with simulated ones."""
    failed = replace(PASSED, passed=False)
    for changes in ({"accuracy": failed}, {"provenance": "simulated"}, {"status": "failed"}):
        with pytest.raises(UserError, match="No two cells"):
            compare_by(launches(10, "a") + launches(20, "b", **changes), "browser")


def test_an_unknown_thing_to_compare_by_gets_the_nearest() -> None:
    """A typing mistake."""
    with pytest.raises(UserError, match="did you mean browser"):
        compare_by(launches(10), "broswer")


def dated(ms: float, day: int, **changes: Any) -> list[LaunchRecord]:
    return launches(ms, campaign=f"c{day:02}", n=5, seed=day, started_at=f"2026-10-{day:02}T08:00:00.000+00:00", **changes)


def test_a_regression_is_found_with_what_changed() -> None:
    """Six campaigns at 10 ms, four at 12 ms since a newer torch: one step, slower, and the versions."""
    records = [record for day in range(1, 7) for record in dated(10, day)]
    records += [record for day in range(7, 11) for record in dated(12, day, environment={"packages": {"torch": "2.13"}})]
    found = history(records[::-1])
    (step,) = found.regressions
    assert [point.launches for point in found.points] == [5] * 10
    assert step.after.campaign == "c07"
    assert step.comparison.ratio == pytest.approx(1.2, rel=0.03)
    assert step.changed == {"torch": ("2.12", "2.13")}


def test_an_unchanged_cell_has_one_level() -> None:
    """Ten campaigns of the same, and a single one."""
    assert history([record for day in range(1, 11) for record in dated(10, day)]).steps == ()
    assert history(dated(10, 1)).steps == ()


def test_a_history_of_several_cells_is_refused() -> None:
    """And one of nothing that ended well."""
    with pytest.raises(UserError, match="of several"):
        history(launches(10, "a") + launches(10, "b"))
    with pytest.raises(UserError, match="no launch that ended well"):
        history(launches(10, status="failed"))
