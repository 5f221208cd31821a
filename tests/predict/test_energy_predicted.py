"""Energy where counters exist: measured cells by their counters, others by the device's power, and a reason elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import device, world

from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.predict import Predictor
from ipfs_accelerate_py.predict.fitted import Fitted
from ipfs_accelerate_py.predict.training import power, train

WATTS = 20.0


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """Two devices, the first with a counter: it draws 20 W whatever runs, and three launches of each cell differ by 1 %."""
    evidence = world(devices=2)
    for index, each in enumerate(evidence.observations):
        if each.key.text == device(0).text:
            joules = WATTS * each.ms["total"] / 1000
            evidence.observations[index] = replace(each, energy_j=(0.99 * joules, joules, 1.01 * joules))
    return Fitted.from_json(train(evidence).to_json())


def test_a_counted_cell_is_measured(fitted: Fitted) -> None:
    """The joules of a cell are the median of its launches, marked measured, with an interval for the next."""
    found = Predictor(fitted).predict(describe("bert", "small"), platform="cpu", machine="0" * 16, sequence_length=128)
    assert found.energy_j is not None and found.energy_provenance == "measured"
    assert found.energy_j.value == pytest.approx(WATTS * found.latency_ms.value / 1000, rel=1e-4)
    assert 1 < found.energy_j.high / found.energy_j.value < 1.2


def test_what_was_not_counted_is_power_times_time(fitted: Fitted) -> None:
    """Another length of the model, and a model that was never measured: 20 W times the predicted time, marked so."""
    for name, size, length in (("bert", "small", 200), ("wav2vec2", "base", None)):
        found = Predictor(fitted).predict(describe(name, size), platform="cpu", machine="0" * 16, sequence_length=length)
        assert found.energy_j is not None and found.energy_provenance == "predicted"
        assert found.energy_j.value == pytest.approx(WATTS * found.latency_ms.value / 1000, rel=1e-4)
        assert found.energy_j.high / found.energy_j.value >= found.latency_ms.high / found.latency_ms.value - 1e-9


def test_without_a_counter_there_is_no_energy(fitted: Fitted) -> None:
    """The device that was not counted has none, and says why."""
    found = Predictor(fitted).predict(describe("bert", "small"), platform="cpu", machine=f"{1:016x}", sequence_length=128)
    assert found.energy_j is None and found.energy_provenance is None and "counter" in found.energy_reason


def test_one_cell_alone_says_nothing_of_the_power_of_others(fitted: Fitted) -> None:
    """Power needs two cells; of cells at 10, 20 and 40 W it is 20, and a factor of 2 apart."""
    cells = [
        replace(each, ms={"total": 1000.0}, energy_j=(watts,))
        for each, watts in zip(world(devices=1).observations, (10.0, 20.0, 40.0), strict=False)
    ]
    assert power(cells[:1]) is None
    middle, apart = power(cells)  # type: ignore[misc]
    assert middle == 20.0 and apart == pytest.approx(0.693, abs=1e-3)
