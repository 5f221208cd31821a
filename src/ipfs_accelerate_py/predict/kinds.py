"""What kind of thing a device is, where its ceilings come from, and what is assumed of a kind before anything was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .ceilings import Ceilings, from_datasheet
from .fitting import Costs
from .observations import ON_GPU as GPU_PLATFORMS
from .observations import DeviceKey, Evidence

# Where no device of an engine is known at all. Orders of magnitude only: an interval that rests on them is as wide as the errors say.
DEFAULTS = {
    "torch@gpu": Costs(1.5, 1.5, 12e-6, 100e-6),
    "torch@cpu": Costs(1.5, 1.5, 5e-6, 200e-6),
    "onnxruntime@cpu": Costs(1.5, 1.5, 2e-6, 100e-6),
    "openvino@cpu": Costs(1.3, 1.3, 2e-6, 100e-6),
    "onnxruntime-web@cpu": Costs(3.0, 3.0, 3e-6, 1e-3),
    "onnxruntime-web@gpu-chromium": Costs(3.0, 3.0, 30e-6, 3e-3),
}
GENERIC = Costs(2.0, 2.0, 10e-6, 1e-3)
# Caches are a few times as fast as memory: what fits into them moves faster.
_CACHES = ((1e6, 6e10), (3e7, 3e10), (2e8, 1.5e10))
NOMINAL_CPU = Ceilings("nominal", "a processor that was not probed", {"float32": ((1.0, 1e11),)}, _CACHES)
NOMINAL_SOFTWARE = Ceilings("nominal", "a software adapter that was not probed", {"float32": ((1.0, 1e9),)}, ((1.0, 1e9),))
DEAR_S = 1e-9


def group_of(platform: str, engine: str, browser: str | None = None, software_adapter: bool = False) -> str:
    """What shares a prior: an engine on GPUs, or on processors. On WebGPU also the family of browsers, whose waits for a readback differ
    by far; software adapters are a kind of their own."""
    if software_adapter:
        return f"{engine}@software"
    family = ""
    if platform == "webgpu" and browser:
        family = (
            "-firefox" if "firefox" in browser else "-safari" if browser in ("safari", "webkit", "webkitgtk") else "-chromium"
        )
    return f"{engine}@{'gpu' if platform in GPU_PLATFORMS else 'cpu'}{family}"


def ceilings_of(key: DeviceKey, evidence: Evidence, software_adapter: bool, probed: bool = True) -> Ceilings:
    """The probe's, else the datasheet's of the machine's GPU or processor, else nominal ones, which the fit corrects."""
    if probed and key.text in evidence.probes:
        return evidence.probes[key.text]
    if software_adapter:
        return NOMINAL_SOFTWARE
    facts = evidence.machines.get(key.machine, {})
    kind, names = "gpu", [gpu["name"] for gpu in facts.get("gpus") or [] if gpu.get("name")]
    if key.platform not in GPU_PLATFORMS:
        kind, names = "cpu", [facts.get("cpu_model") or ""]
    found = (from_datasheet(name) for name in names)
    # A processor may share its name with a GPU: Apple M1.
    return next((each for each in found if each is not None and each.facts["kind"] == kind), NOMINAL_CPU)


def machine_name(facts: Mapping[str, Any], platform: str) -> str:
    """For people: the GPU of a GPU platform, otherwise the processor and its number of cores."""
    gpus = [str(gpu["name"]) for gpu in facts.get("gpus") or [] if gpu.get("name")]
    if platform in GPU_PLATFORMS and gpus:
        return gpus[0]
    return f"{facts.get('cpu_model') or 'unknown processor'}, {facts.get('logical_cpus') or '?'} CPUs"


def with_probe(prior: Costs, ceilings: Ceilings | None) -> Costs:
    """An engine's prior with what a probe measured of the device: starting a kernel, and an execution with its readback."""
    if ceilings is None or ceilings.source != "probe":
        return prior
    kernel = ceilings.dispatch_s or prior.kernel_s
    return replace(prior, kernel_s=max(kernel, DEAR_S), execution_s=max(ceilings.execution_s or prior.execution_s, DEAR_S))
