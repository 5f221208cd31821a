"""The recommendation as people call it: both published examples, the command, its speed's precondition, and this machine's places."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ipfs_accelerate_py.recommend import places

HEAVY = ("torch", "transformers", "openvino", "onnxruntime", "sklearn", "duckdb", "plotly")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ipfs_accelerate_py.cli", "recommend", *arguments], capture_output=True, text=True, timeout=400
    )


def test_published_examples():
    """Verbatim; inference gets a platform, training a strategy within 40 GB for each of four GPUs."""
    from automated_hardware_selection import select_optimal_hardware

    # fmt: off
    # Select hardware for inference
    hardware = select_optimal_hardware(
        model_name="llama-7b",
        batch_size=1,
        mode="inference"
    )

    # Select hardware for distributed training
    training_hardware = select_optimal_hardware(
        model_name="t5-base",
        distributed=True,
        gpu_count=4,
        max_memory_gb=40,
        mode="training"
    )
    # fmt: on
    assert hardware.parameter_count == 6_738_415_616
    assert hardware.primary_recommendation.feasible and hardware.distributed_strategy is None
    assert training_hardware.parameter_count == 222_903_552
    assert training_hardware.primary_recommendation.layout.devices == 4
    assert training_hardware.memory_per_gpu["peak_bytes"] <= 40e9
    assert training_hardware.prediction_source in ("measured", "interpolated", "new model", "new device", "datasheet")


def test_nothing_heavy_is_imported():
    """Answering imports neither torch nor any engine nor the store: the precondition of an answer in 300 ms."""
    program = (
        "import sys; from automated_hardware_selection import select_optimal_hardware; "
        "str(select_optimal_hardware('bert-base-uncased')); "
        "select_optimal_hardware('t5-base', mode='training', gpu_count=2, available_hardware=['h200']); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_command_prints_json():
    """--json is valid and has the fields of the selection."""
    done = command("bert", "--hardware", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert {score["platform"] for score in value["all_scores"]} == {"cpu"}


def test_command_prints_a_configuration():
    """Only the file, so that it can go to one; a zero stage gets DeepSpeed's."""
    done = command(
        *("t5-base", "--mode", "training", "--gpu-count", "2", "--hardware", "h200", "--configuration", "accelerate")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("compute_environment: LOCAL_MACHINE\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lama-7b",), "Unknown model 'lama-7b': did you mean"),
        (("bert", "--gpu-count", "0"), "--gpu-count must be a whole number of at least 1, not 0."),
        (("bert", "--hardware", "cudaa"), "Unknown hardware 'cudaa'"),
        (("bert", "--objective", "cost"), "There are no prices to compare by"),
        (("bert", "--configuration", "torchrun"), "A configuration is written for training"),
        (("bert", "--store", "nowhere.duckdb"), "There is no store at nowhere.duckdb"),
        (("bert", "--latency-limit-ms", "0.0001"), "Nothing meets --latency-limit-ms 0.0001: the nearest is"),
    ],
)
def test_command_mistakes(arguments, sentence):
    """One sentence on standard error, status 2, no traceback."""
    done = command(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_this_machine():
    """The cheap facts agree with what the platforms themselves are asked slowly: engines that are installed, memory, browsers on disk."""
    from ipfs_accelerate_py.platforms.base import Unavailable
    from ipfs_accelerate_py.platforms.registry import probe
    from ipfs_accelerate_py.web.browsers import find_browsers

    found = places.here()
    processor = probe("cpu")
    usable = {place.engine for place in found if place.platform == "cpu" and not place.lacking}
    assert not isinstance(processor, Unavailable) and usable == set(processor.engines)
    browsers = {key for key, browser in find_browsers().items() if not isinstance(browser, Unavailable)}
    assert browsers <= {place.browser for place in found if place.platform == "wasm"}
    assert all(place.memory_bytes and place.memory_bytes > 2**30 for place in found if place.platform == "cpu")


def test_torch_build_is_read_not_imported(tmp_path, monkeypatch):
    """The CUDA version stands in torch's own file."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch" / "version.py").write_text("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    spec = type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})
    monkeypatch.setattr(places, "find_spec", lambda name: spec)
    assert places.torch_build("cuda") == "13.0"
    assert places.torch_build("hip") is None


def test_nvidia_gpus_without_a_cuda_build(monkeypatch):
    """A GPU that torch cannot use is a place that lacks something, and says what."""
    rows = [{"name": "NVIDIA H200", "memory.total": "143771"}] * 2
    monkeypatch.setattr(places.nvidia_smi, "query", lambda subject, fields: rows)
    monkeypatch.setattr(places, "torch_build", lambda kind: None)
    (gpu,) = (place for place in places.here() if place.platform == "cuda")
    assert gpu.count == 2 and gpu.memory_bytes == 143771 * 2**20
    assert gpu.lacking


def test_an_empty_store_says_what_answers_instead(tmp_path, monkeypatch):
    """Nothing to learn from is no error: the reference measurements answer, and the reasons say so."""
    from ipfs_accelerate_py.recommend.select import select_optimal_hardware
    from ipfs_accelerate_py.store.writer import Store

    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    Store.create_or_open(tmp_path / "empty.duckdb")
    found = select_optimal_hardware("bert", available_hardware=["cpu"], store=tmp_path / "empty.duckdb")
    assert any("has no measurement to learn from" in sentence for sentence in found.explanation)
    assert found.primary_recommendation.feasible
