"""The probe of collectives: its fit, its processes, and what goes wrong."""

from __future__ import annotations

import pytest

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.recommend import collectives
from ipfs_accelerate_py.recommend.collectives import fit, load, probe, save


def test_fit_finds_the_line():
    """Times of exactly alpha + bytes / beta give both back, over four decades of sizes."""
    line = fit({size: 2e-4 + size / 3e9 for size in (4_096, 65_536, 1_048_576, 16_777_216)})
    assert line.alpha_s == pytest.approx(2e-4)
    assert line.bytes_per_s == pytest.approx(3e9)
    assert line.worst < 1e-9


def test_fit_is_never_negative():
    """Small messages that are faster than the line would have it give an alpha of 0, not a negative one."""
    line = fit({1_000: 1e-7, 1_000_000: 1e-3})
    assert line.alpha_s >= 0 and line.bytes_per_s > 0 and line.worst > 0


def test_two_processes_are_measured_and_kept(tmp_path, monkeypatch):
    """A real probe over gloo: every collective has a rate, and what is kept is read back equal."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))
    found = probe(2, threads=1, repeats=1)
    assert found.source == "measured" and found.processes == 2
    assert set(found.lines) == {"all_reduce", "all_gather", "reduce_scatter"}
    assert all(0 < line.bytes_per_s < 1e13 for line in found.lines.values())
    assert found.matmul_flops_per_s is not None and found.matmul_flops_per_s["float32"] > 1e8
    assert load(2, "gloo") is None, "nothing is kept unasked"
    save(found)
    assert load(2, "gloo") == found
    assert load(3, "gloo") is None


@pytest.mark.parametrize(
    ("processes", "backend", "sentence"),
    [
        (0, "gloo", "1 process .* or more, not 0"),
        (9999, "gloo", "at most 64 processes, .* not 9999"),
        (2, "glo", "Unknown backend of collectives 'glo': did you mean gloo"),
    ],
)
def test_mistakes(processes, backend, sentence):
    """A wrong number or name is one sentence, and starts no process."""
    with pytest.raises(UserError, match=sentence):
        probe(processes, backend)


def test_a_backend_that_is_not_here():
    """Without NVIDIA GPUs, nccl says so and leaves no process behind."""
    import torch

    if torch.cuda.device_count() >= 2:
        pytest.skip("this machine has the GPUs that nccl needs")
    with pytest.raises(UnavailableError, match=r"nccl collectives cannot run here: torch sees . of the 2 NVIDIA GPUs"):
        probe(2, "nccl")


def test_a_probe_that_hangs_is_ended(monkeypatch):
    """Workers that do not answer in time are killed, and the sentence says how long was waited."""
    import subprocess

    started = []
    original = subprocess.Popen

    def sleeping(command, **options):
        started.append(original(["sleep", "600"], **options))
        return started[-1]

    monkeypatch.setattr(collectives.subprocess, "Popen", sleeping)
    monkeypatch.setattr(collectives, "LIMIT_S", 0.2)
    with pytest.raises(UnavailableError, match=r"did not end within"):
        probe(2)
    assert [worker.poll() is not None for worker in started] == [True, True]
