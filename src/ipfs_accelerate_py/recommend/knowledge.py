"""What the recommendation knows of times: the predictor, told apart by machine. What was measured elsewhere is never passed off as ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..graph import ModelDescription
from ..predict import Candidate, Interval, Prediction, Predictor
from ..predict.ceilings import Ceilings, datasheets, from_datasheet
from .places import Place, from_candidates

ELSEWHERE = math.log(1.5)  # how much another machine widens an interval where the predictor has no width for new devices


class Knowledge:
    """A predictor that knows which machine this is. ``notes`` are sentences for the explanation."""

    def __init__(self, predictor: Predictor, notes: Sequence[str] = (), own_machine: str | None = None) -> None:
        self.predictor = predictor
        self.notes = tuple(notes)
        self._own = own_machine

    @classmethod
    def of(cls, store: str | Path | None) -> Knowledge:
        """From a store beside the shipped measurements; from those alone where there is none, or nothing usable in it."""
        if store is None:
            return cls(Predictor.from_stores(), ["Known from the reference measurements that come with the program."])
        if not Path(store).exists():
            raise UserError(f"There is no store at {store}: make one with 'ipfs-accelerate bench', or leave it out.")
        predictor = Predictor.from_stores([Path(store)])
        notes = list(predictor.fitted.warnings)
        if predictor.version == Predictor.from_stores().version:
            notes.append(
                f"{store} has no measurement to learn from: the reference measurements that come with the program answer."
            )
        return cls(predictor, notes)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Measured cells that were not believed: how many, and why."""
        return self.predictor.fitted.warnings

    @cached_property
    def own_machine(self) -> str:
        """This machine's hash, as stores have it."""
        if self._own is not None:
            return self._own
        from ..measure.machine import fingerprint
        from ..spec import identity

        return identity(fingerprint())

    @cached_property
    def _candidates(self) -> list[Candidate]:
        return self.predictor.candidates()

    def others(self) -> list[Place]:
        """Places of other machines: measured or probed ones, and the devices of the datasheets."""
        elsewhere = [each for each in self._candidates if each.machine != self.own_machine]
        measured = {known.name for each in self._candidates if (known := from_datasheet(each.name)) is not None}
        return [*from_candidates(elsewhere), *(each for each in _of_datasheets() if each.machine not in measured)]

    def predict(self, description: ModelDescription, *, software_adapter: bool = False, **where: Any) -> Prediction:
        """As ``Predictor.predict``; ``machine`` None means this one. Where nothing is known of this machine, the figures of the best known
        one stand in, with a wider interval, as predictions, and a reason that says so. A software adapter is never told by a GPU, nor
        a GPU by a software adapter: UserError where only the other kind is known."""
        machine, own = self._machine(where, software_adapter)
        found = self.predictor.predict(description, **{**where, "machine": machine})
        return found if own else self._elsewhere(found)

    def ceilings(self, place: Place) -> Ceilings:
        """What the place can do at most; of the machine that stands in where nothing is known of this one."""
        names = ("platform", "engine", "device", "browser", "machine")
        where = {name: getattr(place, name) for name in names}
        return self.predictor.ceilings(**{**where, "machine": self._machine(where, place.software_adapter)[0]})

    def _machine(self, where: dict[str, Any], software_adapter: bool) -> tuple[str | None, bool]:
        """Whose figures answer, and whether they are of the machine that was meant."""
        if where.get("machine") is not None:
            return where["machine"], True
        alike = [each for each in self._candidates if _same(each, where)]
        if alike and all(each.software_adapter != software_adapter for each in alike):
            kind, other = ("software adapter", "GPU") if software_adapter else ("GPU", "software adapter")
            raise UserError(
                f"Only a {other} was measured on {where['platform']} in {where.get('browser')}, and this is a {kind}."
            )
        known = [each for each in self._candidates if each.machine == self.own_machine]
        if any(_same(each, where) for each in known):
            return self.own_machine, True
        return next((each.machine for each in alike if each.software_adapter == software_adapter), None), False

    def _elsewhere(self, found: Prediction) -> Prediction:
        width = self.predictor.fitted.widths.get("new device")
        extra = math.exp(width.half_width if width is not None and width.n else ELSEWHERE)

        def wider(interval: Interval) -> Interval:
            return replace(interval, low=interval.low / extra, high=interval.high * extra)

        reason = "Nothing was measured on this machine there: these are the figures of the machine named here, made wider."
        return replace(
            found,
            latency_ms=wider(found.latency_ms),
            throughput_per_s=wider(found.throughput_per_s),
            time_to_first_token_ms=found.time_to_first_token_ms and wider(found.time_to_first_token_ms),
            time_per_output_token_ms=found.time_per_output_token_ms and wider(found.time_per_output_token_ms),
            energy_j=found.energy_j and wider(found.energy_j),
            energy_provenance=found.energy_provenance and "predicted",
            regime="datasheet" if found.regime == "datasheet" else "new device",
            provenance="predicted",
            reasons=(reason, *(each for each in found.reasons if not each.startswith("Measured:"))),
        )


def _same(candidate: Candidate, where: dict[str, Any]) -> bool:
    return all(
        getattr(candidate, name) == where.get(name, default)
        for name, default in (("platform", None), ("engine", None), ("device", "default"), ("browser", None))
    )


def _of_datasheets() -> list[Place]:
    """Each device of the datasheets on the platform of its maker, by torch."""
    places = []
    for row in datasheets():
        ceilings = from_datasheet(row["name"])
        platform = _platform(row["name"], row["kind"])
        if ceilings is not None:
            places.append(
                Place(
                    platform=platform,
                    engine="torch",
                    machine=row["name"],
                    description=row["name"],
                    memory_bytes=ceilings.memory_bytes,
                    count=10**6,  # as many as are asked for
                    known="datasheet",
                )
            )
    return places


def _platform(name: str, kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    return next(
        (platform for maker, platform in (("NVIDIA", "cuda"), ("AMD", "rocm"), ("Apple", "mps")) if maker in name), "cuda"
    )
