"""Noise, memory and the machine: on a file tree and a tool of known content, and on this machine for what must hold on any."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys

import pytest

from ipfs_accelerate_py.measure import machine, memory, noise, nvidia_smi

QUIET = {
    **noise.snapshot(),
    "load_average_1m": 0.1,
    "usable_cpus": 2,
    "logical_cpus": 2,
    "governors": ["performance"],
    "on_ac_power": True,
    "cpu_throttle_count": 4,
    "cpu_stolen_s": 1.0,
    "swapped_out_bytes": 0,
    "monotonic_s": 100.0,
    "gpus": None,
    "foreign_gpu_pids": None,
}


@pytest.fixture
def fake_gpu(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the path that answers as one H200 does with a driver that knows only the older field name."""
    if os.name != "posix":
        pytest.skip("the stand-in for nvidia-smi is a shell script")
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "  *clocks_event_reasons*) echo 'Field \"clocks_event_reasons.active\" is not a valid field to query.'; exit 2;;\n"
        "  *clocks_throttle_reasons*) echo '0, 71, 0x0000000000000024';;\n"
        f"  --query-compute-apps*) printf '4242\\n{os.getpid()}\\n';;\n"
        "  *memory.total*) echo 'NVIDIA H200, [N/A], 570.124.06';;\n"
        "esac\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_a_snapshot_is_json_and_knows_this_machine():
    """Facts that every system has are there; everything goes through JSON unchanged."""
    facts = noise.snapshot()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["logical_cpus"] >= 1 and 0 < facts["memory_available_bytes"] <= facts["memory_total_bytes"]


def test_processor_facts_are_read_from_the_kernel_and_absent_ones_are_none(tmp_path):
    """Governors, turbo and throttling of two processors; an empty tree gives None for each."""
    empty = noise.snapshot(tmp_path)
    assert (empty["governors"], empty["boost"], empty["cpu_throttle_count"]) == (None, None, None)
    for processor, governor in (("cpu0", "powersave"), ("cpu1", "performance")):
        folder = tmp_path / "sys/devices/system/cpu" / processor
        for name, value in (("cpufreq/scaling_governor", governor), ("thermal_throttle/core_throttle_count", "3")):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(f"{value}\n")
    turbo = tmp_path / "sys/devices/system/cpu/intel_pstate/no_turbo"
    turbo.parent.mkdir()
    turbo.write_text("1\n")
    facts = noise.snapshot(tmp_path)
    assert (facts["governors"], facts["boost"], facts["cpu_throttle_count"]) == (["performance", "powersave"], False, 6)


def test_gpu_facts_are_read_from_the_tool(fake_gpu):
    """Temperature and slowdowns by the older field name, foreign processes without this one, and [N/A] as None."""
    facts = noise.snapshot()
    assert facts["gpus"] == [{"index": 0, "temperature_c": 71, "slowdowns": ["power cap", "temperature (software)"]}]
    assert facts["foreign_gpu_pids"] == [4242]
    assert machine.fingerprint()["gpus"] == [{"name": "NVIDIA H200", "memory_bytes": None, "driver": "570.124.06"}]
    after = {**QUIET, "gpus": facts["gpus"], "foreign_gpu_pids": facts["foreign_gpu_pids"]}
    assert noise.warnings(QUIET, after) == [
        "GPU 0 was slowed down at the end: power cap, temperature (software).",
        "Other processes used the GPU: 4242.",
    ]


def test_without_the_tool_nothing_is_known_of_gpus(monkeypatch, tmp_path):
    """None, not an empty list: no tool does not mean no GPU."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi.query("gpu", ("index",)) is None
    assert machine.fingerprint()["gpus"] is None and noise.snapshot()["foreign_gpu_pids"] is None


def test_a_quiet_machine_gives_no_warnings():
    """Nothing changed, or nothing known: nothing to say."""
    assert noise.warnings(QUIET, {**QUIET, "monotonic_s": 110.0, "load_average_1m": 9.0}) == []
    unknown = {key: None if key not in ("monotonic_s", "logical_cpus") else value for key, value in QUIET.items()}
    assert noise.warnings(unknown, {**unknown, "monotonic_s": 110.0}) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"load_average_1m": 5.2}, {}, "load average was 5.2 on 2 CPUs"),
        ({"governors": ["powersave"]}, {}, "governor is powersave"),
        ({}, {"on_ac_power": False}, "battery"),
        ({}, {"cpu_throttle_count": 9}, "throttled for its temperature 5 times"),
        ({}, {"cpu_stolen_s": 2.0}, "hypervisor gave 5%"),
        ({}, {"swapped_out_bytes": 3 * 2**20}, "3 MiB were swapped out"),
        ({"foreign_gpu_pids": [7]}, {"foreign_gpu_pids": [7, 8]}, "used the GPU: 7, 8"),
    ],
)
def test_each_disturbance_is_said_once_in_plain_words(before, after, words):
    """One warning for one disturbance in ten seconds."""
    (warning,) = noise.warnings({**QUIET, **before}, {**QUIET, "monotonic_s": 110.0, **after})
    assert words in warning


def test_peak_memory_remembers_what_was_freed():
    """100 MiB that were allocated, touched and freed in a child are in its peak, and not in its smaller sibling's."""
    program = "import sys; b = bytearray(int(sys.argv[1])); b[::4096] = b'x' * len(b[::4096]); del b;"
    program += "from ipfs_accelerate_py.measure.memory import own_peak_bytes; print(own_peak_bytes())"
    small, large = (int(subprocess.check_output([sys.executable, "-c", program, str(n)])) for n in (1, 300 * 2**20))
    assert large - small > 200 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells another process's peak and its proportional share")
def test_a_tree_counts_its_descendants():
    """A child with a child of its own are two processes, with more memory than either; both figures are there."""
    grandchild = "import sys; print(1, flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        tree = memory.tree_memory([child.pid])
        assert tree.processes == 2
        assert 0 < tree.proportional_bytes < tree.peak_bytes
        assert memory.tree_peak_bytes([child.pid, child.pid]) == memory.tree_peak_bytes([child.pid])
    finally:
        child.communicate()
    assert memory.tree_memory([child.pid]) == memory.TreeMemory(0, None, None)


def test_the_fingerprint_is_stable_and_names_nobody():
    """Two processes give the same; neither the host's name nor the raw machine identifier is in it."""
    program = "import json; from ipfs_accelerate_py.measure import machine; print(json.dumps(machine.fingerprint()))"
    text = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert json.loads(text) == machine.fingerprint()
    assert socket.gethostname() not in [str(value) for value in machine.fingerprint().values()]
    if os.path.exists("/etc/machine-id"):
        with open("/etc/machine-id") as file:
            assert file.read().strip() not in text


def test_the_environment_has_versions_of_what_is_installed():
    """Python and NumPy by version; nothing that is not installed."""
    facts = machine.environment()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["packages"]["numpy"] == __import__("numpy").__version__
    assert None not in facts["packages"].values()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_of_the_checkout_that_tracks_the_file(tmp_path):
    """A tracked file has a commit and is marked when changed; a stranger inside somebody else's checkout has none."""

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.check_output(["git", "-C", str(tmp_path), *identity, *words], text=True).strip()

    ours, stranger = tmp_path / "machine.py", tmp_path / "stranger.py"
    ours.write_text("one")
    stranger.write_text("one")
    git("init", "-q")
    git("add", "machine.py")
    git("commit", "-qm", "first")
    assert machine._checkout(ours) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    ours.write_text("two")
    assert machine._checkout(ours)["modified"] is True
    assert machine._checkout(stranger) == {"commit": None, "modified": None}
