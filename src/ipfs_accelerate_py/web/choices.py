"""Which switches are on, and why: what a person asks for, else what was measured to pay on this adapter, else a default that is safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..models.base import ModelClass
from .configuration import Configuration
from .measured_effects import LOOPBACK, PLATFORM, MeasuredEffect, adapter_of, known_effects
from .switches import Switches

# By switch: the configuration's key, and what holds where nothing was measured.
KEYS = {
    "precompilation": "use_shader_precompilation",
    "gpu_audio": "use_compute_shaders",
    "parallel_loading": "enable_parallel_loading",
    "readback": "readback",
    "keep": "keep_profile",
}
DEFAULTS: dict[str, tuple[bool | str, str]] = {
    "precompilation": (True, "the default: loading waits for the shaders, and the first request does not"),
    "gpu_audio": (False, "the default: Python makes the features, until a measurement on this adapter says that the GPU pays"),
    "parallel_loading": (True, "the default: chunks are checked one by one and taken up again after a dropped connection"),
    "readback": ("auto", "the default: both ways are tried on the live adapter, and the faster one is remembered"),
    "keep": (False, "the default: each browser starts with a fresh profile, which leaves nothing on the disk"),
}
NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class Choice:
    """``on`` is what holds for a switch; ``because`` says why; ``effects`` are those that were measured in this browser on this adapter."""

    on: bool | str
    because: str
    effects: tuple[MeasuredEffect, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        effect = [each.to_dict() for each in self.effects]
        return {"on": self.on, "because": self.because, "measured_effect": effect or NOT_MEASURED}


@dataclass(frozen=True)
class Place:
    """Where a model is opened. ``page`` is the browser's key, ``device`` the facts of its adapter as the page gives them."""

    platform: str
    page: str
    device: Mapping[str, Any] | None
    precision: str
    kept: bool


def choose_here(config: Configuration, model_class: ModelClass, place: Place) -> dict[str, Choice]:
    """``choose`` by what this machine's store and the reference measurements hold. A store that cannot be read is no reason not to run:
    the defaults hold, and each choice says why."""
    if place.platform != "webgpu":
        return choose(config, model_class, place, ())
    try:
        return choose(config, model_class, place, known_effects())
    except UserError as unreadable:
        unknown = choose(config, model_class, place, ())
        told = f"the measurements could not be read: {unreadable}"
        return {name: replace(choice, because=f"{choice.because}; {told}") for name, choice in unknown.items()}


def choose(config: Configuration, model_class: ModelClass, place: Place, known: Sequence[MeasuredEffect]) -> dict[str, Choice]:
    """A choice for each switch, by its name in Switches."""
    found = {}
    for switch, key in KEYS.items():
        effects = relevant(known, switch, place, model_class.name)
        asked = getattr(config, key)
        on, because = DEFAULTS[switch]
        if asked is not None:
            on, because = asked, f"asked for by {key}"
        elif switch != "keep" and (deciding := [each for each in effects if _decides(switch, each, place)]):
            on, because = _by_measurement(switch, deciding)
        if reason := _impossible(switch, model_class, place):
            on, because = "plain" if switch == "readback" else False, reason
        found[switch] = Choice(on, because, effects)
    if found["keep"].on and not place.kept:
        found["keep"] = replace(found["keep"], on=False, because="this page's browser was started without a kept profile")
    return found


def switches_of(choices: Mapping[str, Choice]) -> Switches:
    return Switches(**{name: choice.on for name, choice in choices.items()})  # type: ignore[arg-type]


def relevant(known: Sequence[MeasuredEffect], switch: str, place: Place, model_class: str) -> tuple[MeasuredEffect, ...]:
    """Those of the switch alone, over loopback, in this browser on this adapter; of this class where there are some, else of any."""
    adapter = adapter_of(place.device)
    here = [
        each
        for each in known
        if (each.switch, each.browser, each.adapter, each.link) == (switch, place.page, adapter, LOOPBACK)
    ]
    own = [each for each in here if each.model.split()[0] == model_class]
    return tuple(own or here) if place.platform == "webgpu" else ()


def _decides(switch: str, effect: MeasuredEffect, place: Place) -> bool:
    """Alone in a page the GPU's front end is compared with one in JavaScript; the platform's other way is Python's. Both were measured
    with float32 features."""
    return effect.high is not None and (switch != "gpu_audio" or (effect.runner == PLATFORM and place.precision != "float16"))


def _by_measurement(switch: str, effects: Sequence[MeasuredEffect]) -> tuple[bool | str, str]:
    """On where each measured model gained, its whole interval below 1; off where one lost, its interval above 1; else as by default."""
    told = "; ".join(str(each) for each in effects)
    if any(each.loses for each in effects):
        return "plain" if switch == "readback" else False, f"measured on this adapter to cost more than it brings: {told}"
    if all(each.pays for each in effects):
        return "woken" if switch == "readback" else True, f"measured on this adapter to pay: {told}"
    on, because = DEFAULTS[switch]
    return on, f"{because}; a measurement on this adapter did not decide: {told}"


def _impossible(switch: str, model_class: ModelClass, place: Place) -> str | None:
    from .audio_front_end import IN_PAGE

    if switch in ("precompilation", "gpu_audio", "readback") and place.platform != "webgpu":
        return f"{place.platform} compiles no shaders and reads nothing back from a GPU"
    if switch != "gpu_audio":
        return None
    if model_class.name not in IN_PAGE:
        return f"of {model_class.name} models there are no features that the GPU could make: {', '.join(IN_PAGE)} have some"
    return None


def wgsl_choices(config: Configuration, kept: bool) -> dict[str, Choice]:
    """What the language-model engine does, which has no such switches: only the small pass at the end of loading may be left out."""
    asked = config.use_shader_precompilation
    said = "the default" if asked is None else "asked for by use_shader_precompilation"
    compiled = "the wgsl engine compiles all its pipelines while its weights come, whether a small pass follows or not"
    return {
        "precompilation": Choice(asked is not False, f"{said}; {compiled}"),
        "gpu_audio": Choice(False, "the wgsl engine has no audio"),
        "parallel_loading": Choice(False, "the wgsl engine fetches its files one after the other, while it compiles"),
        "readback": Choice("auto", "the wgsl engine tries both ways at each start"),
        "keep": Choice(kept, "asked for by keep_profile" if kept else DEFAULTS["keep"][1]),
    }


def simulated_choices() -> dict[str, Choice]:
    """A simulation has no page that could be optimised."""
    return {switch: Choice("plain" if switch == "readback" else False, "no page runs in a simulation") for switch in KEYS}
