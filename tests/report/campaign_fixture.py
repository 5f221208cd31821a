"""A campaign as a store would hold it, for tests and for looking at the report. Its times are drawn at random: it measures nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ipfs_accelerate_py.measure.record import Accuracy, LaunchRecord
from ipfs_accelerate_py.platforms.base import Coverage
from ipfs_accelerate_py.report.data import ReportData, flatten
from ipfs_accelerate_py.spec import Spec, Target, Workload

MODELS = {
    "bert": {"task": "feature-extraction", "sequence_length": 128},
    "vit": {"task": "image-classification"},
    "whisper": {"task": "automatic-speech-recognition", "new_tokens": 32},
    "llama": {"task": "text-generation", "sequence_length": 64, "new_tokens": 32},
}
TARGETS = {
    "torch": Target(platform="cpu", engine="torch"),
    "onnxruntime": Target(platform="cpu", engine="onnxruntime"),
    "openvino": Target(platform="openvino", engine="openvino"),
    "wasm-chromium": Target(platform="wasm", engine="onnxruntime-web", browser="chromium"),
    "wasm-firefox": Target(platform="wasm", engine="onnxruntime-web", browser="firefox"),
    "webnn": Target(platform="webnn", engine="onnxruntime-web", browser="chromium-headless-shell"),
    "webgpu-chromium": Target(platform="webgpu", engine="onnxruntime-web", browser="chromium"),
    "webgpu-firefox": Target(platform="webgpu", engine="onnxruntime-web", browser="firefox"),
}
# Milliseconds that make a plausible picture; None: no result.
MEDIANS: dict[str, dict[str, float | None]] = {
    "bert": dict(zip(TARGETS, (21.4, 17.8, 11.2, 71.0, 19.3, 13.6, 1156.0, 246.0), strict=True)),
    "vit": dict(zip(TARGETS, (88.0, 61.5, 61.2, 240.0, 82.0, None, 3900.0, 910.0), strict=True)),
    "whisper": dict(zip(TARGETS, (310.0, 402.0, 288.0, 1510.0, 640.0, None, None, 5200.0), strict=True)),
    "llama": dict(zip(TARGETS, (842.0, 910.0, 655.0, 4400.0, 1800.0, None, 9100.0, None), strict=True)),
}
PROBLEMS = {
    ("vit", "webnn"): (
        "unsupported",
        "unsupported",
        "WebNN of Chromium 153 has no operator 'erf' for float16 on its CPU device.",
    ),
    ("whisper", "webnn"): (
        "failed",
        "gpu_process_crashed",
        "The browser's GPU process ended (SIGABRT in TFLite) while compiling.",
    ),
    ("whisper", "webgpu-chromium"): ("failed", "timeout", "compile went over its limit of 120 s"),
    ("llama", "webnn"): ("unsupported", "unsupported", "The graph needs a key-value cache of 96 positions; the limit is 64."),
    ("llama", "webgpu-firefox"): ("failed", "device_lost", "The GPU device was lost: Parent device is lost"),
}
MACHINE = {
    "machine_id": "4f1c9a0b7d2e6835",
    "architecture": "x86_64",
    "cpu_model": "Intel Xeon Platinum 8481C",
    "physical_cores": 1,
    "logical_cpus": 2,
    "memory_bytes": 24_696_061_952,
    "os": "Linux",
    "os_version": "Debian GNU/Linux 13",
    "gpus": None,
}
ENVIRONMENT = {
    "python": "3.13.5",
    "packages": {"onnxruntime": "1.32.0", "openvino": "2026.4", "torch": "2.13.0"},
    "modified": False,
}
ADAPTERS = {"chromium": "SwiftShader", "firefox": ""}  # Firefox hides the name
PLATFORMS: tuple[dict[str, Any], ...] = (
    {"name": "cpu", "available": True},
    {"name": "openvino", "available": True},
    {"name": "wasm", "available": True},
    {"name": "webnn", "available": True},
    {"name": "webgpu", "available": True},
    {
        "name": "cuda",
        "available": False,
        "reason": "torch was built without CUDA.",
        "remedy": "Install a torch with CUDA.",
    },
    {
        "name": "rocm",
        "available": False,
        "reason": "There is no /dev/kfd: no AMD GPU or no driver.",
        "remedy": "Load the amdgpu driver.",
    },
    {"name": "mps", "available": False, "reason": "MPS exists on macOS only.", "remedy": ""},
)


def spec_of(model: str, target: str, **changes: Any) -> Spec:
    work = Workload(model_class=model, size="small", weights="synthetic", origin="synthetic:0", **MODELS[model])
    return Spec(workload=replace(work, **changes), target=TARGETS[target])


def launch(
    spec: Spec, index: int, median_ms: float | None, seed: str = "", spread: float = 0.015, **changes: Any
) -> LaunchRecord:
    """One launch with a median near ``median_ms``; without one, a failure (say which with ``changes``)."""
    generator = random.Random(f"{spec.hash}{index}{seed}")
    common: dict[str, Any] = {
        "launch_id": f"0190-{spec.hash}-{index}{seed}",
        "campaign_id": "0190-campaign",
        "spec": spec,
        "launch_index": index,
        "order_index": index,
        "started_at": "2026-11-23T05:00:00.000+00:00",
        "duration_s": 12.5,
        "provenance": "measured",
        "machine": MACHINE,
        "environment": ENVIRONMENT,
        "noise": {"before": {"load_average": 0.4}, "after": {"load_average": 1.9}, "warnings": []},
    }
    if median_ms is None:
        failure = {"status": "failed", "error_class": "process_died", "error_message": "It ended.", "error_phase": "compile"}
        return LaunchRecord(**{**common, **failure, "phases_ns": {"start": 4_000_000}, **changes})
    web = spec.target.browser is not None
    level = median_ms * generator.gauss(1.0, spread)
    samples = tuple(round(level * 1e6 * (1 + abs(generator.gauss(0, 0.012)))) for _ in range(40))
    tokens = spec.workload.new_tokens
    gpu = spec.target.platform == "webgpu"
    facts: dict[str, Any] = {"threads": 2}
    if gpu:
        facts["device"] = {"vendor": "", "architecture": "", "description": ADAPTERS[spec.target.browser or ""]}
    ok: dict[str, Any] = {
        "status": "ok",
        "phases_ns": {
            "start": round(9e8 * generator.uniform(0.9, 1.1)) if web else 60_000_000,
            "fetch": round(2.2e8 * generator.uniform(0.9, 1.1)) if web else 0,
            "load": 310_000_000,
            "compile": round((1.9e9 if web else 3e8) * generator.uniform(0.9, 1.1)),
            "first_inference": round(level * 2.5e6),
            "warm_up": round(level * 1e7),
            "steady": sum(samples),
        },
        "warm_up_ns": tuple(round(level * 1e6 * factor) for factor in (1.4, 1.1, 1.02, 1.0)),
        "samples_ns": samples,
        "first_token_ns": tuple(sample // 6 for sample in samples) if tokens else (),
        "per_token_ns": tuple(sample * 5 // 6 // (tokens - 1) for sample in samples) if tokens else (),
        "steady": True,
        "stop_reason": "precision",
        "clock_resolution_ns": 5000 if web else 1,
        "accuracy": Accuracy(cosine=0.9999997, relative_error=9e-7, top1_agreement=1.0, passed=True, rule="cosine >= 0.999"),
        "host_peak_bytes": round((1.3e9 if web else 6e8) * generator.uniform(0.97, 1.03)),
        "device_peak_bytes": 240_000_000 if gpu else None,
        "weights_bytes": 91_000_000,
        "coverage": Coverage(provider="WebGPU" if gpu else "CPU", nodes={"WebGPU": 97, "CPU": 3} if gpu else {"CPU": 100}),
        "software_adapter": True if gpu else None,
        "bytes_read_back": 196_608,
        "facts": facts,
    }
    return LaunchRecord(**{**common, **ok, **changes})


def campaign(launches: int = 5) -> Iterator[LaunchRecord]:
    """Four models on eight targets, with failed, unsupported, wrong, partly failed and unsteady cells."""
    for index in range(launches):
        for model in MODELS:
            for target in TARGETS:
                spec = spec_of(model, target)
                status, error_class, message = PROBLEMS.get((model, target), ("failed", None, None))
                problem = {"status": status, "error_class": error_class, "error_message": message, "error_phase": "compile"}
                changes: dict[str, Any] = problem if MEDIANS[model][target] is None else {}
                if (model, target) == ("whisper", "wasm-chromium"):
                    wrong = Accuracy(cosine=0.71, relative_error=0.4, top1_agreement=0.2, passed=False, rule="top-1 >= 0.99")
                    changes = {"accuracy": wrong}
                if (model, target, index) == ("bert", "wasm-chromium", 3):
                    yield launch(spec, index, None, error_class="browser_crashed", error_message="Chromium ended with SIGSEGV.")
                    continue
                if (model, target, index) == ("llama", "torch", 2):
                    changes = {
                        "steady": False,
                        "stop_reason": "cap",
                        "noise": {"warnings": ["load average rose to 3.1 during the launch"]},
                    }
                yield launch(spec, index, MEDIANS[model][target], **changes)


def data(records: Iterator[LaunchRecord] | list[LaunchRecord] | None = None, **changes: Any) -> ReportData:
    values: dict[str, Any] = {
        "launches": tuple(flatten(record) for record in (campaign() if records is None else records)),
        "campaign": {
            "campaign_id": "0190-campaign",
            "started_at": "2026-11-23T05:00:00+00:00",
            "request": {"launches": 5, "seed": 0, "models": list(MODELS)},
        },
        "machine": MACHINE,
        "platforms": PLATFORMS,
    }
    return ReportData(**{**values, **changes})
