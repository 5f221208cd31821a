"""Finding platforms: lazily, without ever raising, and with a remedy for what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms import extras, registry
from ipfs_accelerate_py.platforms.base import Available, Unavailable
from ipfs_accelerate_py.platforms.cpu import Cpu
from ipfs_accelerate_py.platforms.cuda import Cuda
from ipfs_accelerate_py.platforms.mps import Mps
from ipfs_accelerate_py.platforms.openvino import OpenVino
from ipfs_accelerate_py.platforms.processor import default_threads, processor_facts
from ipfs_accelerate_py.platforms.rocm import Rocm
from ipfs_accelerate_py.spec import Workload

NEEDS = [(Cuda, "torch"), (Rocm, "torch"), (Mps, "torch"), (OpenVino, "openvino")]
WORK = Workload(model_class="bert", size="tiny", weights="synthetic", origin="synthetic:0", task="sentence-embedding")


@pytest.fixture
def on_a_mac(monkeypatch):
    """Lets mps go on to import torch."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")


def fake_torch(monkeypatch, **version):
    """A torch that reports two GPUs, as no machine of the tests has."""
    properties = SimpleNamespace(
        name="GPU", total_memory=2**34, multi_processor_count=8, major=9, minor=0, gcnArchName="gfx942"
    )
    torch = SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(**{"cuda": None, "hip": None, **version}),
        cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda index: properties),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch


def test_listing_platforms_imports_nothing_heavy():
    """Names, and even the platforms themselves, cost no import of torch, onnxruntime or openvino."""
    code = (
        "import sys; from ipfs_accelerate_py.platforms.registry import platforms; found = platforms();"
        "print([name for name in ('torch', 'onnxruntime', 'openvino', 'transformers') if name in sys.modules], 'cpu' in found)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[] True\n"


def test_unknown_platform_names_the_nearest():
    """A slip in a platform's name is a user's mistake, answered with the name that was meant."""
    with pytest.raises(UserError, match="Unknown platform 'opnvino': did you mean openvino"):
        registry.platform("opnvino")


def test_broken_plug_in_is_unavailable_and_takes_nothing_down(monkeypatch):
    """A plug-in that does not import gives its reason and a command; the others still answer."""
    ours = EntryPoint("cpu", "ipfs_accelerate_py.platforms.cpu:Cpu", registry.GROUP)
    broken = EntryPoint("abacus", "no_such_package.abacus:Abacus", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, ours])
    found = registry.probe_all()
    assert list(found) == ["cpu", "abacus"]
    assert isinstance(found["cpu"], Available)
    assert isinstance(found["abacus"], Unavailable)
    assert "No module named 'no_such_package'" in found["abacus"].reason
    assert found["abacus"].remedy == "pip install --force-reinstall no_such_package"
    assert registry.platform("abacus").unsupported(WORK, "wood") == found["abacus"].reason


def test_probe_that_raises_is_unavailable(monkeypatch):
    """A platform that breaks the contract and raises becomes Unavailable, with what it raised."""
    monkeypatch.setattr(Cpu, "probe", lambda self: 1 / 0)
    found = registry.probe("cpu")
    assert isinstance(found, Unavailable)
    assert "ZeroDivisionError" in found.reason


@pytest.mark.parametrize(("kind", "package"), NEEDS)
def test_missing_package_gives_the_command(kind, package, monkeypatch, on_a_mac):
    """Without its package a platform is unavailable, and the remedy is the exact pip command."""
    monkeypatch.setitem(sys.modules, package, None)
    assert kind().probe() == Unavailable(f"{package} is not installed.", f'pip install "ipfs_accelerate_py[{package}]"')


@pytest.mark.parametrize("error", ["OSError('libcudart.so.13: cannot open shared object file')", "RuntimeError('ABI')"])
@pytest.mark.parametrize(("kind", "package"), NEEDS)
def test_package_that_does_not_import_gives_its_error(kind, package, error, monkeypatch, on_a_mac, tmp_path):
    """A package that explodes on import does not explode the probe; its own words are the reason."""
    (tmp_path / f"{package}.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    found = kind().probe()
    assert isinstance(found, Unavailable)
    assert eval(error).args[0] in found.reason
    assert found.remedy == f"pip install --force-reinstall {package}"


def test_cpu_without_engines_gives_the_command(monkeypatch):
    """With neither engine installed the CPU is unavailable, and the command installs both."""
    monkeypatch.setattr("ipfs_accelerate_py.platforms.cpu.find_spec", lambda name: None)
    assert Cpu().probe().remedy == extras.install_command("torch,onnx")


def test_cpu_tells_its_facts():
    """The CPU's facts are JSON, consistent with each other and complete on Linux."""
    found = Cpu().probe()
    assert isinstance(found, Available)
    facts = found.devices[0].facts
    assert json.loads(json.dumps(facts)) == facts
    assert 1 <= facts["usable_cores"] <= facts["physical_cores"] <= facts["logical_cores"]
    assert facts["memory_bytes"] > 2**28
    assert facts["model"]
    assert set(found.facts) == set(found.engines) == {"torch", "onnxruntime"}
    if sys.platform == "linux":
        assert facts["features"]


def test_default_threads_follow_affinity(monkeypatch):
    """A process that may use one processor gets one thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert default_threads() == 1
    assert processor_facts()["usable_cores"] == 1


def test_default_threads_follow_a_container_quota(monkeypatch):
    """A control group that allows one and a half processors gets two threads, however many cores there are."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(10**6, 10**6 + 64)), raising=False)
    monkeypatch.setattr("ipfs_accelerate_py.platforms.processor._quota", lambda: 2)
    assert default_threads() == 2


def test_cuda_and_rocm_are_told_apart(monkeypatch):
    """Both answer to torch.cuda; the build of torch decides which of the two there is."""
    fake_torch(monkeypatch, cuda="13.0")
    assert isinstance(Cuda().probe(), Available)
    assert "without ROCm" in Rocm().probe().reason
    fake_torch(monkeypatch, hip="7.1")
    assert isinstance(Rocm().probe(), Available)
    assert "without CUDA" in Cuda().probe().reason


def test_gpus_have_names_and_facts(monkeypatch):
    """The first GPU is the default device, others have torch's names; each tells memory and generation."""
    fake_torch(monkeypatch, cuda="13.0")
    found = Cuda().probe()
    assert [device.name for device in found.devices] == ["default", "cuda:1"]
    assert found.devices[0].facts == {"memory_bytes": 2**34, "multiprocessors": 8, "compute_capability": "9.0"}
    assert found.facts["cuda"] == "13.0"
    fake_torch(monkeypatch, hip="7.1")
    assert Rocm().probe().devices[0].facts["architecture"] == "gfx942"


def test_gpu_build_without_gpu_is_unavailable(monkeypatch):
    """A CUDA build on a machine whose driver does not answer says what to check."""
    fake_torch(monkeypatch, cuda="13.0").cuda.is_available = lambda: False
    assert "nvidia-smi" in Cuda().probe().remedy


def test_failing_driver_is_unavailable(monkeypatch):
    """A driver that raises in the middle of the probe becomes a reason."""

    def broken(index):
        raise RuntimeError("CUDA driver version is insufficient")

    fake_torch(monkeypatch, cuda="13.0").cuda.get_device_properties = broken
    assert "driver version is insufficient" in Cuda().probe().reason


def test_mps_is_for_macs(monkeypatch):
    """Elsewhere than on macOS, Metal is unavailable without importing torch."""
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert Mps().probe().reason == "Metal is part of macOS; this is Linux."


def test_openvino_lists_devices_by_full_name():
    """OpenVINO's CPU is the default device, under the processor's full name."""
    found = OpenVino().probe()
    assert isinstance(found, Available)
    assert found.devices[0].name == "default"
    assert found.devices[0].description == processor_facts()["model"]
