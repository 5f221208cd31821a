"""Joules from the hardware's counters: a made-up /sys, a made-up GPU, and what a launch keeps of them."""

from __future__ import annotations

import os

import pytest

from ipfs_accelerate_py.measure import energy
from ipfs_accelerate_py.measure.energy import Meter, packages, per_iteration


def processor(root, number, microjoules, name="package-0", most=262_143_328_850):
    """A RAPL folder as Linux has it."""
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{text}\n")
    return folder


def passing(monkeypatch, *times):
    """The clock shows these seconds, one after the other."""
    left = list(times)
    monkeypatch.setattr(energy.time, "perf_counter", lambda: left.pop(0))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(energy, "gpu", lambda: ([], "there is no NVIDIA GPU"))


def test_packages_are_added_and_their_parts_left_out(tmp_path, monkeypatch, no_gpu):
    """Two packages grow by 3 and 4.5 J; what lies inside one (cores), and the whole platform, are not counted again."""
    processor(tmp_path, 0, 1_000_000)
    processor(tmp_path, 1, 2_000_000, "package-1")
    processor(tmp_path, "0:0", 500_000, "core")
    processor(tmp_path, 2, 9_000_000, "psys")
    passing(monkeypatch, 10.0, 12.0)
    meter = Meter.here(tmp_path)
    meter.start()
    for number, microjoules, name in ((0, 4_000_000, "package-0"), (1, 6_500_000, "package-1")):
        processor(tmp_path, number, microjoules, name)
    meter.stop()
    facts = meter.facts(iterations=10)
    assert facts["joules"] == {"processor": pytest.approx(7.5)} and facts["seconds"] == 2.0
    assert facts["missing"] == {"gpu": "there is no NVIDIA GPU"}
    assert per_iteration(facts, on_gpu=False) == pytest.approx(0.75)
    assert per_iteration(facts, on_gpu=True) is None


def test_a_counter_that_began_again(tmp_path, monkeypatch, no_gpu):
    """From 95 J of at most 100 J to 2 J is 7 J, not -93."""
    processor(tmp_path, 0, 95_000_000, most=100_000_000)
    passing(monkeypatch, 0.0, 1.0)
    meter = Meter.here(tmp_path)
    meter.start()
    processor(tmp_path, 0, 2_000_000, most=100_000_000)
    meter.stop()
    assert meter.facts(1)["joules"]["processor"] == pytest.approx(7.0)


def test_a_phase_shorter_than_the_counters_steps(tmp_path, monkeypatch, no_gpu):
    """20 ms of RAPL are not believed, and the reason is kept."""
    processor(tmp_path, 0, 0)
    passing(monkeypatch, 0.0, 0.02)
    meter = Meter.here(tmp_path)
    meter.start()
    meter.stop()
    facts = meter.facts(1)
    assert facts["joules"] == {} and "0.02 s" in facts["missing"]["processor"]


def test_no_counter_says_why(tmp_path, no_gpu):
    """Without the folder, and with one that only root may read."""
    assert "RAPL" in packages(tmp_path)[1]
    folder = processor(tmp_path, 0, 1)
    (folder / "energy_uj").unlink()
    assert "cannot be read" in packages(tmp_path)[1]
    (folder / "energy_uj").write_text("1")
    (folder / "energy_uj").chmod(0)
    if os.geteuid() != 0:
        assert "root alone" in packages(tmp_path)[1]


def test_a_counter_that_goes_away_takes_no_launch_with_it(tmp_path, monkeypatch, no_gpu):
    """What cannot be read at the end is a reason among the facts."""
    folder = processor(tmp_path, 0, 1)
    passing(monkeypatch, 0.0, 1.0)
    meter = Meter.here(tmp_path)
    meter.start()
    (folder / "energy_uj").unlink()
    meter.stop()
    facts = meter.facts(3)
    assert facts["joules"] == {} and "could not be read again" in facts["missing"]["processor"]


class Gpu:
    """NVML's two calls and its counter in millijoules."""

    def __init__(self, *millijoules):
        self.left = list(millijoules)

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, total):
        total._obj.value = self.left.pop(0)
        return 0


def test_a_gpus_counter_and_the_processor_that_fed_it(tmp_path, monkeypatch):
    """A GPU's work is its own joules and the processor's; the processor's work is the processor's alone."""
    monkeypatch.setattr(energy.nvidia_smi, "query", lambda *asked: [{"uuid": "GPU-1"}])
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: Gpu(5_000, 5_000, 425_000))
    processor(tmp_path, 0, 0)
    passing(monkeypatch, 0.0, 2.0)
    meter = Meter.here(tmp_path)
    meter.start()
    processor(tmp_path, 0, 60_000_000)
    meter.stop()
    facts = meter.facts(100)
    assert facts["joules"] == {"processor": pytest.approx(60.0), "gpu": pytest.approx(420.0)}
    assert per_iteration(facts, on_gpu=True) == pytest.approx(4.8)
    assert per_iteration(facts, on_gpu=False) == pytest.approx(0.6)


def test_several_gpus_are_not_guessed_between(monkeypatch):
    """Two visible GPUs: which one works is not known."""
    monkeypatch.setattr(energy.nvidia_smi, "query", lambda *asked: [{"uuid": "GPU-1"}, {"uuid": "GPU-2"}])
    counters, reason = energy.gpu()
    assert counters == [] and "CUDA_VISIBLE_DEVICES" in reason
