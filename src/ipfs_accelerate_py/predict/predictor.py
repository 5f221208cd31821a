"""Predictions from a fitted predictor: which regime applies, the value, and the interval that this regime's own errors give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, nearest
from ..graph import ModelCounts, ModelDescription, count
from ..graph.counting import lengths, within_limit
from ..graph.parts import parts_of
from ..spec import MODES, PLATFORMS, PRECISIONS
from . import conformal, residual
from .ceilings import Ceilings, from_datasheet, words_of
from .fitted import Fitted, FittedDevice, Measured, shipped
from .fitting import Costs, terms
from .kinds import GPU_PLATFORMS, group_of, known_kind, prior_of
from .memory import prior
from .observations import DeviceKey
from .prediction import Candidate, Interval, Prediction

NO_ENERGY = "no energy counter was read where this was measured (RAPL and NVIDIA's are, where the machine shows them)"
UNKNOWN_WIDTH = 1.0  # widens, in the logarithm, by this times the share of operators that are not known
OTHER_PRECISION = 0.3  # widens where the device was measured at other precisions alone
FAR = 1.5  # widens by this factor what is far from all that was measured with the engine
NO_SUCH_KIND = math.log(10)  # widens, in the logarithm, where no device of the kind is known at all
SMALLEST_MEMORY = 0.05


@dataclass(frozen=True)
class _Where:
    """The device that was asked for, as far as it is known."""

    fitted: FittedDevice | None
    ceilings: Ceilings
    costs: Costs
    key: DeviceKey
    regime: str


class Predictor:
    """Predicts from ``fitted``; make one with ``from_stores``."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted

    @classmethod
    def from_stores(cls, stores: Sequence[Path | str] = (), *, reference: bool = True) -> Predictor:
        """Trained on these stores, with the shipped ``reference`` measurements unless that is False. Training is kept in the cache folder
        until a store changes. Without stores it is the shipped predictor, and nothing is read but one small file."""
        if not stores and reference:
            return cls(shipped())
        from .cache import trained

        return cls(trained([Path(store) for store in stores], reference))

    @property
    def version(self) -> str:
        return self.fitted.version

    def candidates(self) -> list[Candidate]:
        """Every device that was measured or probed, at every precision that was measured there (float32 where only probed)."""
        found = []
        for device in self.fitted.devices.values():
            key = DeviceKey.of(device.key)
            for precision in sorted({cell.precision for cell in device.cells}) or ["float32"]:
                found.append(
                    Candidate(
                        machine=key.machine,
                        platform=key.platform,
                        engine=key.engine,
                        device=key.device,
                        browser=key.browser,
                        precision=precision,
                        known="measured" if device.cells else "probed",
                        name=device.name,
                        memory_bytes=device.ceilings.memory_bytes,
                        software_adapter=device.software_adapter,
                    )
                )
        return found

    def ceilings(
        self,
        *,
        platform: str,
        engine: str | None,
        device: str = "default",
        browser: str | None = None,
        machine: str | None = None,
    ) -> Ceilings:
        """What this device can do at most, named as for ``predict``. UserError for a place that nothing is known of."""
        return self._where(platform, engine, device, browser, machine).ceilings

    def predict(
        self,
        description: ModelDescription,
        *,
        platform: str,
        engine: str | None = None,
        device: str = "default",
        browser: str | None = None,
        machine: str | None = None,
        batch_size: int = 1,
        sequence_length: int | None = None,
        new_tokens: int | None = None,
        precision: str = "float32",
        mode: str = "inference",
        part: str | None = None,
    ) -> Prediction:
        """``machine`` is a machine's hash (or its beginning), words of the name of its device, or a device of the datasheets; by default
        the one that is known best. ``part`` names one of ``graph.parts.parts_of``: the figures are of its share alone, and predicted.
        UserError for a place that nothing is known of, and for values that are none."""
        for name, known, what in (
            (platform, PLATFORMS, "platform"),
            (precision, PRECISIONS, "precision"),
            (mode, MODES, "mode"),
        ):
            if name not in known:
                raise nearest(name, known, what)
        sequence, new = lengths(description, sequence_length, new_tokens)
        within_limit(description, sequence, new if mode == "inference" else None)
        new_or_none = new if description.generates and mode == "inference" else None
        counts = count(
            description, batch_size=batch_size, sequence_length=sequence, new_tokens=new, precision=precision, mode=mode
        )
        if part is not None:
            counts = parts_of(counts)[part]
        where = self._where(platform, engine, device, browser, machine)
        asked = (batch_size, sequence, new_or_none, precision, mode)
        cell = _find(where.fitted, description, asked) if part is None else None
        reasons = _about(where)
        if cell is not None:
            half = conformal.next_launch(cell.low_ms, cell.high_ms, cell.launches)
            times = dict(cell.ms)
            regime, provenance = "measured", "measured"
            reasons.append(f"Measured: the median of {cell.launches} launches; the interval is for the next one.")
            half = self.fitted.widths["interpolated"].half_width if half is None else half
        else:
            regime, times, half, told = self._modelled(description, where, counts, batch_size, precision)
            provenance = "predicted"
            reasons += told
        reasons += [note[0].upper() + note[1:] + "." for note in counts.notes]
        latency = conformal.interval(times["total"], half)
        first, token = times.get("first"), times.get("token")
        energy, basis, energy_provenance = _energy(where.fitted, cell, latency, half)
        return Prediction(
            model=description.name,
            platform=platform,
            engine=where.key.engine,
            device=device,
            browser=where.key.browser,
            machine=where.key.machine or None,
            batch_size=batch_size,
            sequence_length=sequence,
            new_tokens=new_or_none,
            precision=precision,
            mode=mode,
            latency_ms=latency,
            throughput_per_s=latency.inverse(batch_size * 1000),
            time_to_first_token_ms=None if first is None else conformal.interval(first, half),
            time_per_output_token_ms=None if token is None else conformal.interval(token, half),
            memory_bytes=self._memory(counts, where, mode),
            energy_j=energy,
            energy_reason=basis,
            energy_provenance=energy_provenance,
            regime=regime,
            provenance=provenance,
            model_version=self.version,
            reasons=tuple(reasons),
            machine_name=where.fitted.name if where.fitted else where.ceilings.name,
            software_adapter=bool(where.fitted and where.fitted.software_adapter),
        )

    def _modelled(
        self, description: ModelDescription, where: _Where, counts: ModelCounts, batch_size: int, precision: str
    ) -> tuple[str, dict[str, float], float, list[str]]:
        """Regime, times in ms, half-width and reasons of what was not measured."""
        fitted, engine = where.fitted, where.key.engine
        model = f"{description.model_class} {description.size}"
        own = fitted.models.get(model) if fitted else None
        regime = "interpolated" if own else where.regime
        costs = own or where.costs
        found = terms(counts, where.ceilings, engine, precision)
        total, added, kept = found["total"], 0.0, 1.0
        reasons = []
        if own is None:
            given = residual.features(total, costs, batch_size)
            added, kept = residual.correction(self.fitted.residual, engine, given)
        software = bool(fitted and fitted.software_adapter)
        width = self.fitted.widths["software adapter" if software else regime]
        half = width.half_width
        reasons.append(_basis(regime, width.n, width.groups))
        if kept < 0.5:
            reasons.append("This work is unlike all that was measured with this engine, which widens the interval.")
            half *= FAR
        kind = group_of(where.key.platform, engine, where.key.browser, software)
        if regime in ("new device", "datasheet") and not known_kind(self.fitted.priors, kind):
            half += NO_SUCH_KIND
            reasons.append(f"No device of this kind ({kind}) was ever measured, so the value is little more than a guess.")
        if total.unknown_share > 0:
            half += UNKNOWN_WIDTH * total.unknown_share
            names = sorted({name for phase in counts.phases.values() for name in phase.unknown})
            reasons.append(f"Operators that are not known, which widens the interval: {', '.join(names)}.")
        if fitted and fitted.cells and precision not in {cell.precision for cell in fitted.cells}:
            half += OTHER_PRECISION
            reasons.append(f"Nothing was measured there at {precision}, which widens the interval.")
        if fitted and fitted.cells and counts.phases.get("backward") and all(cell.mode == "inference" for cell in fitted.cells):
            half += OTHER_PRECISION
            reasons.append("No training was measured there, which widens the interval.")
        times = {name: 1000 * term.seconds(costs) * math.exp(added) for name, term in found.items()}
        arithmetic, traffic, started, waited = total.shares(costs)
        reasons.append(
            f"Of the time {arithmetic:.0%} is arithmetic, {traffic:.0%} moving data, {started:.0%} starting {total.kernels:.0f} kernels, "
            f"{waited:.0%} waiting for {total.executions:.0f} executions."
        )
        return regime, times, half, reasons

    def _memory(self, counts: ModelCounts, where: _Where, mode: str) -> Interval:
        """Weights, caches and activations by their formula, and what the process or the driver has besides, as measured there."""
        known = where.fitted.memory if where.fitted else None
        half = max(self.fitted.memory_width.half_width, SMALLEST_MEMORY) * (1 if known else 2)
        peak = (known or prior(where.key.platform, where.key.engine)[0]).peak(counts)
        if mode == "training":
            # Gradients and AdamW's two moments, float32 as the weights are, and every forward activation that backward reads.
            peak += 3 * counts.weights_bytes + counts.phases["forward"].bytes_written
            half *= 2
        return conformal.interval(peak, half)

    def _where(self, platform: str, engine: str | None, device: str, browser: str | None, machine: str | None) -> _Where:
        found = [
            fitted
            for fitted in self.fitted.devices.values()
            if _matches(DeviceKey.of(fitted.key), platform, engine, device, browser)
        ]
        if machine is not None:
            there = [fitted for fitted in found if is_called(machine, DeviceKey.of(fitted.key).machine, fitted.name)]
            if not there:
                return self._by_datasheet(machine, platform, engine, device, browser, found)
            found = there
        if not found:
            raise UserError(self._nothing(platform, engine, device, browser))
        best = max(found, key=lambda fitted: (len(fitted.cells), fitted.key))
        regime = "new model" if best.cells else "new device"
        return _Where(best, best.ceilings, best.costs, DeviceKey.of(best.key), regime)

    def _by_datasheet(
        self, name: str, platform: str, engine: str | None, device: str, browser: str | None, others: Sequence[FittedDevice]
    ) -> _Where:
        ceilings = from_datasheet(name)
        if ceilings is None:
            machines = sorted({f"{DeviceKey.of(each.key).machine} ({each.name})" for each in self.fitted.devices.values()})
            raise UserError(
                f"Nothing is known of the machine '{name}': it is in no store and in no datasheet here. Known: {', '.join(machines)}. "
                "On that machine, 'ipfs-accelerate calibrate' takes a minute."
            )
        kind = ceilings.facts.get("kind")
        if (kind == "gpu") != (platform in GPU_PLATFORMS):
            raise UserError(f"{ceilings.name} is a {kind}, which the platform {platform} does not run on.")
        chosen = engine or next((DeviceKey.of(each.key).engine for each in others), None) or _usual_engine(platform)
        group = group_of(platform, chosen, browser)
        costs = prior_of(self.fitted.priors, group, ceilings)
        key = DeviceKey(machine=ceilings.name, platform=platform, engine=chosen, device=device, browser=browser)
        return _Where(None, ceilings, costs, key, "datasheet")

    def _nothing(self, platform: str, engine: str | None, device: str, browser: str | None) -> str:
        asked = " ".join(part for part in (platform, engine, browser, device if device != "default" else None) if part)
        labels = sorted(
            {
                " ".join(part for part in (key.platform, key.engine, key.browser, key.device) if part and part != "default")
                for key in map(DeviceKey.of, self.fitted.devices)
            }
        )
        return (
            f"Nothing is known of {asked}: neither a launch nor a probe. Known: {', '.join(labels)}. Measure some with "
            "'ipfs-accelerate bench', probe it in a minute with 'ipfs-accelerate calibrate', or name a device of the datasheets as the "
            "machine."
        )


def is_called(wanted: str, machine: str, name: str) -> bool:
    """Whether ``wanted`` means this device: the beginning of its machine's hash, or words of its name."""
    words = words_of(wanted)
    return bool(words) and (machine.startswith(wanted) or words <= words_of(name))


def _usual_engine(platform: str) -> str:
    return {"cpu": "onnxruntime", "openvino": "openvino"}.get(
        platform, "torch" if platform in ("cuda", "rocm", "mps") else "onnxruntime-web"
    )


def _matches(key: DeviceKey, platform: str, engine: str | None, device: str, browser: str | None) -> bool:
    return (
        key.platform == platform
        and (engine is None or key.engine == engine)
        and key.device == device
        and (browser is None or key.browser == browser)
    )


def _find(
    fitted: FittedDevice | None, description: ModelDescription, asked: tuple[int, int | None, int | None, str, str]
) -> Measured | None:
    """The measured cell of exactly this work, if there is one."""
    if fitted is None or description.model_class is None or description.size in (None, "custom"):
        return None
    model = f"{description.model_class} {description.size}"
    batch_size, sequence, new, precision, mode = asked
    for cell in fitted.cells:
        same = (cell.batch_size, cell.new_tokens, cell.precision, cell.mode) == (batch_size, new, precision, mode)
        if same and cell.model == model and cell.sequence_length in (None, sequence):
            return cell
    return None


def _energy(
    fitted: FittedDevice | None, cell: Measured | None, latency: Interval, half: float
) -> tuple[Interval | None, str, str | None]:
    """Joules of an iteration, what they rest on, and their provenance. Predicted it is the device's mean power while other models ran,
    times the time; ``half`` is the half-width of the time's interval."""
    if cell is not None and cell.energy_j is not None:
        middle, low, high, launches = cell.energy_j
        known = conformal.next_launch(low, high, launches)
        told = f"Counted by the hardware over {launches} launches, with all else that the device did."
        return conformal.interval(middle, half if known is None else known), told, "measured"
    if fitted is None or fitted.power_w is None:
        return None, NO_ENERGY, None
    watts, apart = fitted.power_w
    told = f"The device drew {watts:.3g} W while other models ran, by its counters; the time is multiplied by that."
    return conformal.interval(watts * latency.value / 1000, half + apart), told, "predicted"


def _about(where: _Where) -> list[str]:
    if where.fitted is None:
        return [f"The ceilings are those of a datasheet: {where.ceilings.name}, {where.ceilings.facts['source']}."]
    told = f"Device: {where.fitted.name}; ceilings from {_SOURCES[where.ceilings.source]}."
    software = ["A software adapter: it says nothing about a GPU."] if where.fitted.software_adapter else []
    return [told, *software]


_SOURCES = {
    "probe": "its probe",
    "datasheet": "a datasheet",
    "nominal": "nothing but its own launches",
}


def _basis(regime: str, n: int, groups: int) -> str:
    what = {
        "interpolated": "This model was measured there at other sizes",
        "new model": "Other models were measured there, this one was not",
        "new device": "The device was probed, and no model was measured there",
        "datasheet": "Neither a launch nor a probe of this device is known",
    }[regime]
    if not n:
        return f"{what}; no errors of this kind are known yet, and the interval is at least as wide as that of the surer kinds."
    return f"{what}; the interval is that of {n} errors over {groups} left-out groups."
