"""What a campaign will run, and in which order. Planning starts no launch; it asks the platforms what is there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from ..errors import UserError, nearest
from ..models.registry import ModelReference, model_classes, resolve, workload
from ..platforms.base import Available, Unavailable
from ..platforms.registry import platform, platform_names, platforms, probe
from ..platforms.simulated import Simulated
from ..spec import BROWSER_PLATFORMS, MODES, PRECISIONS, Spec, Target, Workload, identity

DEFAULT_MODELS = ("bert", "vit", "whisper", "llama")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for; empty tuples mean "all" or the model's own default."""

    models: tuple[str, ...] = DEFAULT_MODELS
    sizes: tuple[str, ...] = ()
    weights: str = "auto"
    platforms: tuple[str, ...] = ()
    browsers: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (1,)
    sequence_lengths: tuple[int, ...] = ()
    new_tokens: int | None = None
    precisions: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = ("inference",)
    launches: int = 5
    software_launches: int = 2  # of targets on a software adapter: slow, and they say nothing about a GPU
    seed: int = 0
    threads: int | None = None
    quick: bool = False
    overlap_imports: bool = False
    simulate: bool = False  # part of what was asked for: a simulated campaign never goes on with a measuring one

    @property
    def provenance(self) -> str:
        return "simulated" if self.simulate else "measured"

    def checked(self) -> Request:
        """This request, or a UserError that names the first mistake."""
        from ..web.browsers import KNOWN

        for what, asked, known in (
            ("platform", self.platforms, platform_names()),
            ("browser", self.browsers, (*KNOWN, "all")),
            ("engine", self.engines, engine_names()),
            ("precision", self.precisions, PRECISIONS),
            ("mode", self.modes, MODES),
        ):
            for name in asked:
                if name not in known:
                    raise nearest(name, known, what)
        for name, values in (("batch size", self.batch_sizes), ("sequence length", self.sequence_lengths)):
            for value in values:
                if value < 1:
                    raise UserError(f"A {name} of {value} makes no sense: give 1 or more.")
        counts = {"--launches": self.launches, "--software-launches": self.software_launches, "--threads": self.threads}
        for option, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{option} {count} makes no sense: give 1 or more.")
        return self


@dataclass(frozen=True)
class Impossible:
    """A cell that cannot run here, kept with its reason."""

    spec: Spec
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Plan:
    """Specs that will run, the cells that cannot with their reasons, and the interleaved order of (spec hash, launch index)."""

    request: Request
    specs: dict[str, Spec]
    references: dict[str, ModelReference]  # by workload hash
    impossible: tuple[Impossible, ...]
    order: tuple[tuple[str, int], ...]
    probed: Mapping[str, Available | Unavailable] = field(default_factory=dict)  # kept with the campaign: what was there

    @property
    def hash(self) -> str:
        """Finds a campaign to resume: one that asked for the same and found the same, weights of folders included."""
        return identity({"request": asdict(self.request), "specs": sorted(self.specs)})

    def to_dict(self) -> dict[str, Any]:
        return {
            "request": asdict(self.request),
            "specs": [spec.to_dict() for spec in self.specs.values()],
            "impossible": [
                {"spec": cell.spec.to_dict(), "reason": cell.reason, "remedy": cell.remedy} for cell in self.impossible
            ],
            "launches": len(self.order),
        }


def make_plan(request: Request, probed: Mapping[str, Available | Unavailable]) -> Plan:
    """Cross the models with the targets that ``probed`` found, and interleave their launches."""
    request.checked()
    references: dict[str, ModelReference] = {}
    specs: dict[str, Spec] = {}
    launches: dict[str, int] = {}
    impossible: list[Impossible] = []
    targets = list(_targets(request, probed))
    for work, reference in _workloads(request):
        references[work.hash] = reference
        for target, missing in targets:
            spec = Spec(workload=work, target=target)
            if missing:
                impossible.append(Impossible(spec, missing.reason, missing.remedy))
            elif reason := platform(target.platform).unsupported(work, target.engine):
                impossible.append(Impossible(spec, reason))
            else:
                specs[spec.hash] = spec
                software = _on_software_adapter(target, probed)
                launches[spec.hash] = min(request.launches, request.software_launches) if software else request.launches
    return Plan(request, specs, references, tuple(impossible), interleave(launches, request.seed), probed)


def engine_names() -> tuple[str, ...]:
    """Every engine that some installed platform can run with."""
    return tuple(dict.fromkeys(engine for found in platforms().values() for engine in found.engines))


def probe_target(name: str, *, simulate: bool) -> Available | Unavailable:
    """What the platform of this name offers; with ``simulate`` all that it could, whatever is here."""
    if not simulate:
        return probe(name)
    return Simulated(name, platform(name).engines).probe()


def interleave(launches: Mapping[str, int], seed: int) -> tuple[tuple[str, int], ...]:
    """Rounds in which every spec that has launches left has one, each round in its own seeded random order: drift of the machine
    then falls on all specs alike, and a campaign that is cut short has nearly the same number of launches of each."""
    order: list[tuple[str, int]] = []
    generator = random.Random(seed)
    for index in range(max(launches.values(), default=0)):
        block = sorted(spec for spec, count in launches.items() if count > index)
        generator.shuffle(block)
        order.extend((spec, index) for spec in block)
    return tuple(order)


def _workloads(request: Request) -> Iterator[tuple[Workload, ModelReference]]:
    """Every combination once: a length that a model does not have makes no second workload."""
    seen: set[str] = set()
    for model in request.models:
        # A folder or a hub id has a size of its own; a class takes each one that was asked for.
        for size in request.sizes if request.sizes and model in model_classes() else (None,):
            reference = resolve(model, size=size, weights=request.weights)
            for mode, precision, batch_size, length in product(
                request.modes, request.precisions, request.batch_sizes, request.sequence_lengths or (None,)
            ):
                work = workload(
                    reference,
                    batch_size=batch_size,
                    sequence_length=length,
                    new_tokens=request.new_tokens,
                    precision=precision,
                    mode=mode,
                )
                if work.hash not in seen:
                    seen.add(work.hash)
                    yield work, reference


def _targets(request: Request, probed: Mapping[str, Available | Unavailable]) -> Iterator[tuple[Target, Unavailable | None]]:
    """Each target that the request covers, with the reason where it is not to be had."""
    for name in request.platforms or platform_names():
        found = probed[name]
        if isinstance(found, Unavailable):
            engine = platform(name).engines[0]
            if not request.engines or engine in request.engines:
                yield Target(platform=name, engine=engine, device=Target.with_threads("default", request.threads)), found
            continue
        for engine in found.engines:
            if request.engines and engine not in request.engines:
                continue
            if name not in BROWSER_PLATFORMS:
                for device in found.devices:
                    named = Target.with_threads(device.name, request.threads)
                    yield Target(platform=name, engine=engine, device=named), None
                continue
            offered = [device.facts["browser"] for device in found.devices]
            missing = found.facts["unavailable_browsers"]
            for browser in _browsers(offered, request.browsers):
                reason = None if browser in offered else Unavailable(**missing[browser])
                named = Target.with_threads("default", request.threads)
                yield Target(platform=name, engine=engine, device=named, browser=browser), reason


def _on_software_adapter(target: Target, probed: Mapping[str, Available | Unavailable]) -> bool:
    """Whether the browser said, when it was probed, that its WebGPU adapter is a software one."""
    found = probed[target.platform]
    if target.platform != "webgpu" or isinstance(found, Unavailable):
        return False
    return any(
        device.facts["browser"] == target.browser and device.facts["webgpu"]["software_adapter"] for device in found.devices
    )


def _browsers(offered: Sequence[str], asked: Sequence[str]) -> Sequence[str]:
    """The browsers that were named, there or not; otherwise all that offer the platform, except the headless shell where a full
    Chromium offers it as well: it is the same browser."""
    if "all" in asked:
        return offered
    if asked:
        return asked
    full = {"chromium", "chrome", "edge"} & set(offered)
    return [browser for browser in offered if browser != "chromium-headless-shell" or not full]
