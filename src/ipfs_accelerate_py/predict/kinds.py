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
    "torch@gpu": Costs.plain(1.5, 1.5, 12e-6, 100e-6),
    "torch@cpu": Costs.plain(1.5, 1.5, 5e-6, 200e-6),
    "onnxruntime@cpu": Costs.plain(1.5, 1.5, 2e-6, 100e-6),
    "openvino@cpu": Costs.plain(1.3, 1.3, 2e-6, 100e-6),
    "onnxruntime-web@cpu": Costs.plain(3.0, 3.0, 3e-6, 1e-3),
    "onnxruntime-web@gpu-chromium": Costs.plain(3.0, 3.0, 30e-6, 3e-3),
}
GENERIC = Costs.plain(2.0, 2.0, 10e-6, 1e-3)
# Caches are a few times as fast as memory: what fits into them moves faster.
_CACHES = ((1e6, 6e10), (3e7, 3e10), (2e8, 1.5e10))
NOMINAL_CPU = Ceilings("nominal", "a processor that was not probed", {"float32": ((1.0, 1e11),)}, _CACHES)
NOMINAL_SOFTWARE = Ceilings("nominal", "a software adapter that was not probed", {"float32": ((1.0, 1e9),)}, ((1.0, 1e9),))
DEAR_S = 1e-9
KERNEL_S, EXECUTION_S = 1e-6, 1e-4  # where a probe could not tell them from nothing


def group_of(platform: str, engine: str, browser: str | None = None, software_adapter: bool = False) -> str:
    """What shares a prior: an engine on GPUs, or on processors. On WebGPU also the family of browsers, whose waits for a readback differ
    by far; WebNN runs a graph by a backend of its own; software adapters are a kind of their own."""
    if software_adapter:
        return f"{engine}@software"
    family = ""
    if platform == "webgpu" and browser:
        family = (
            "-firefox" if "firefox" in browser else "-safari" if browser in ("safari", "webkit", "webkitgtk") else "-chromium"
        )
    if platform == "webnn":
        family = "-webnn"
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


def family(source: str) -> str:
    """Costs are relative to ceilings, and mean something else with those of another family: ``probed``, ``datasheet`` or ``nominal``."""
    return "probed" if source == "probe" else source


def to_probe(costs: Costs, ceilings: Ceilings) -> Costs:
    """Costs with those of a kernel and an execution as multiples of what the probe measured of them."""
    kernel, execution = _of_probe(ceilings)
    return replace(costs, kernel_s=costs.kernel_s / kernel, execution_s=costs.execution_s / execution)


def from_probe(costs: Costs, ceilings: Ceilings) -> Costs:
    """The inverse of ``to_probe``."""
    kernel, execution = _of_probe(ceilings)
    return replace(costs, kernel_s=costs.kernel_s * kernel, execution_s=costs.execution_s * execution)


def _of_probe(ceilings: Ceilings) -> tuple[float, float]:
    return max(ceilings.dispatch_s or KERNEL_S, DEAR_S), max(ceilings.execution_s or EXECUTION_S, DEAR_S)


def prior_of(priors: Mapping[str, Costs], group: str, ceilings: Ceilings | None) -> Costs:
    """What is believed of a device of this group with these ceilings: what its like have with ceilings of this family, else of another
    family, else what is assumed of the kind."""
    wanted = family(ceilings.source) if ceilings is not None else "nominal"
    own = priors.get(f"{group} {wanted}")
    if own is not None:
        return from_probe(own, ceilings) if wanted == "probed" and ceilings is not None else own
    others = [priors[name] for name in (f"{group} datasheet", f"{group} nominal") if name in priors]
    assumed = others[0] if others else DEFAULTS.get(group, GENERIC)
    if wanted == "datasheet" and f"{group} probed" in priors:
        probed = priors[f"{group} probed"]
        return replace(probed, kernel_s=assumed.kernel_s, execution_s=assumed.execution_s)
    if ceilings is None or wanted != "probed":
        return assumed
    # Of the probe what nobody of the kind says; a model's operators are no cheaper than the smallest one.
    kernel, execution = _of_probe(ceilings)
    return replace(assumed, kernel_s=max(kernel, assumed.kernel_s), execution_s=max(execution, assumed.execution_s))


def known_kind(priors: Mapping[str, Costs], group: str) -> bool:
    """Whether any device of the group was measured, or something is assumed of it."""
    return group in DEFAULTS or any(f"{group} {name}" in priors for name in ("probed", "datasheet", "nominal"))
