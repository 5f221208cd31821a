"""The rules of the configuration, each with a name. What a rule corrects is reported; what none can correct raises before a browser
starts."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .audio_front_end import IN_PAGE
from .configuration import Configuration, Finding, Validation
from .errors import ConfigurationError
from .language_model import BITS as CACHE_BITS
from .web_model import BITS, ENGINE, WGSL, WebModel

PRECISION_BITS = (2, 3, 4, 8, 16, 32)
RECOVERIES = ("auto", "fallback", "retry", "abort")
LARGEST_BATCH = 1024
# None, or auto: as was measured on the live adapter, or the default.
OPTIMIZATIONS = ("use_compute_shaders", "use_shader_precompilation", "enable_parallel_loading", "keep_profile")
# Of WebGPU's default limits, which every adapter has (https://www.w3.org/TR/webgpu/#limits).
LARGEST_WORKGROUP = 256
WGSL_CONTEXT = 4096  # tokens that the WGSL engine makes room for where nothing is said


def validate(
    asked: Mapping[str, Any] | None, model: Callable[[Configuration], WebModel], platform: str
) -> tuple[Validation, WebModel]:
    """The configuration with every correction reported, and the model that it names. Raises ConfigurationError for what no rule can
    correct, and what ``model`` raises."""
    checked = Checked(dict(asked or {}))
    checked.run()
    found = model(checked.config())
    checked.of_model(found, platform)
    return Validation(checked.config(), checked.findings), found


class Checked:
    def __init__(self, asked: dict[str, Any]) -> None:
        names = [each.name for each in dataclasses.fields(Configuration)]
        for key in asked:
            if key not in names:
                close = difflib.get_close_matches(str(key), names, n=1)
                raise _uncorrectable(
                    "unknown_key",
                    f"Unknown configuration key '{key}'.",
                    f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}.",
                )
        self.asked = asked
        self.findings: list[Finding] = []
        self.values: dict[str, Any] = {}

    def config(self) -> Configuration:
        return Configuration(**self.values)

    def correct(self, rule: str, key: str, value: Any, why: str, severity: Literal["warning", "error"] = "error") -> None:
        """``value`` stands for what was given under ``key``, and the report says so."""
        self.findings.append(Finding(rule, why, severity, value))
        self.values[key] = value

    def run(self) -> None:
        for each in dataclasses.fields(Configuration):
            if each.name in self.asked:
                self.values[each.name] = self.asked[each.name]
        for key in OPTIMIZATIONS:
            if self.values.get(key) in (None, "auto"):
                self.values.pop(key, None)
        for key in ("use_kv_cache", "use_model_sharding", "truncate", *OPTIMIZATIONS):
            self._boolean(key)
        if self.values.get("readback") is not None:
            self._word("readback", "readback", ("auto", "plain", "woken"))
        self._precision()
        whole = {"batch_size": (1, LARGEST_BATCH), "threads": (1, 64), "max_pending": (1, 100_000)}
        for key, (least, most) in {**whole, "max_new_tokens": (1, None), "context_length": (2, None)}.items():
            self._whole(key, least, most)
        self._memory()
        self._workgroup()
        self._word("recovery_mode", "error_recovery", RECOVERIES)
        self._word("adapter", "adapter", ("auto", "hardware", "software"))
        self._word("weights", "weights", ("auto", "synthetic", "trained"))

    def of_model(self, model: WebModel, platform: str) -> None:
        """Rules that need to know what runs, and where."""
        self._precision_of_engine(model, platform)
        bits = self.values["precision"]
        engines = model.engines(platform, bits and BITS[bits])
        self._cache_of_engine(model, engines)
        self._rows_of_engine(engines)
        if self.values.get("use_model_sharding"):
            why = "A model is not split over several tabs; it runs in one page."
            self.correct("sharding_unavailable", "use_model_sharding", False, why)
        if self.values.get("workgroup_size") is not None:
            self.correct(
                "workgroup_of_engine",
                "workgroup_size",
                None,
                f"{' or '.join(engines)} chooses the workgroups of its kernels itself: workgroup_size has no effect.",
                "warning",
            )
        if self.values.get("use_compute_shaders") and model.model_class.name not in IN_PAGE:
            why = (
                f"use_compute_shaders has no effect: it makes the audio features of {' and '.join(IN_PAGE)} models on the GPU."
            )
            self.findings.append(Finding("compute_shaders_of_model", why, "warning"))
        for key in ("context_length", "max_new_tokens"):
            if key in self.values and not model.generates:
                self.findings.append(
                    Finding(
                        "not_generating", f"{key} has no effect: {model.model_class.name} models do not generate.", "warning"
                    )
                )

    def _boolean(self, key: str) -> None:
        value = self.values.get(key, False)
        if isinstance(value, bool):
            return
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        meant = words.get(str(value).lower())
        if meant is None:
            raise _uncorrectable("boolean", f"{key} is true or false, not {value!r}.")
        self.correct("boolean", key, meant, f"{key} is true or false: {value!r} was taken for {meant}.")

    def _precision(self) -> None:
        value = self.values.get("precision")
        if isinstance(value, Mapping):
            parts = [_bits(part, f"layer '{layer}'") for layer, part in value.items()]
            if not parts:
                raise _uncorrectable("mixed_precision", "A mixed precision names at least one layer.")
            widest = max(parts)
            self.correct(
                "mixed_precision",
                "precision",
                widest,
                "All layers get one precision here (a folder that 'ipfs-accelerate quantize --budget' made has its own): the widest that "
                f"was asked for, {widest} bit.",
            )
        elif value in (None, "auto"):
            self.values["precision"] = None
        else:
            self.values["precision"] = _bits(value, "precision")
        bits = self.values["precision"]
        if bits is not None and bits not in PRECISION_BITS:
            near = next((known for known in PRECISION_BITS if known >= bits), PRECISION_BITS[-1])
            self.correct(
                "precision_range",
                "precision",
                near,
                f"A precision has {', '.join(map(str, PRECISION_BITS))} bits, not {bits}: {near} was taken.",
            )

    def _whole(self, key: str, least: int, most: int | None) -> None:
        value = self.values.get(key)
        if value is None:
            self.values.pop(key, None)
            return
        number = _number(value)
        if number is None or number != int(number):
            raise _uncorrectable(key, f"{key} is a whole number, not {value!r}.")
        fitting = max(least, int(number)) if most is None else min(most, max(least, int(number)))
        if fitting != number or not isinstance(value, int) or isinstance(value, bool):
            limits = f"{least} or more" if most is None else f"from {least} to {most:,}"
            self.correct(key, key, fitting, f"{key} is a whole number {limits}, not {value!r}: {fitting:,} was taken.")

    def _memory(self) -> None:
        value = self.values.get("memory_threshold_mb")
        number = _number(value)
        if value is None:
            return
        if number is None or number <= 0:
            raise _uncorrectable("memory_threshold_mb", f"memory_threshold_mb is a number of megabytes above 0, not {value!r}.")
        self.values["memory_threshold_mb"] = number

    def _workgroup(self) -> None:
        value = self.values.get("workgroup_size")
        if value is None:
            return
        sizes = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
        if not 1 <= len(sizes) <= 3 or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise _uncorrectable("workgroup_size", f"workgroup_size is one to three whole numbers above 0, not {value!r}.")
        product = 1
        for size in sizes:
            product *= size
        self.values["workgroup_size"] = sizes
        if product > LARGEST_WORKGROUP:
            self.correct(
                "workgroup_limit",
                "workgroup_size",
                (LARGEST_WORKGROUP, 1, 1),
                f"A workgroup has at most {LARGEST_WORKGROUP} invocations in WebGPU, not {product:,}.",
            )

    def _word(self, rule: str, key: str, known: tuple[str, ...]) -> None:
        value = self.values.get(key)
        if value is None:
            self.values.pop(key, None)
            return
        if value in known:
            return
        meant = str(value).strip().lower()
        if meant not in known:
            raise _uncorrectable(rule, f"{key} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}.")
        self.correct(rule, key, meant, f"{key} is written in small letters: {meant}.")

    def _precision_of_engine(self, model: WebModel, platform: str) -> None:
        bits = self.values["precision"]
        if model.low_bit and platform not in ("webgpu", "auto"):
            why = model.unsupported(platform, BITS[32])
            raise _uncorrectable(
                "platform_of_folder", str(why), "Set platform='webgpu', or name the folder of the float weights."
            )
        if bits is None:
            self.values["precision"] = model.low_bit_bits
            return
        usable = sorted(width for width, name in BITS.items() if name in model.precisions(platform))
        if bits in usable:
            return
        wider = next((width for width in usable if width > bits), usable[-1])
        reason = model.unsupported(platform, BITS[bits]) if platform != "auto" else model.unsupported("webgpu", BITS[bits])
        self.correct("precision_of_engine", "precision", wider, f"{reason} {wider} bit was taken.")

    def _cache_of_engine(self, model: WebModel, engines: tuple[str, ...]) -> None:
        if not model.generates:
            return
        if not self.values.get("use_kv_cache", True):
            self.correct("kv_cache_needed", "use_kv_cache", True, "The exported decoders always keep a key-value cache.")
        if WGSL in engines:
            self._cache_of_wgsl()
            return
        held = 16 if self.values["precision"] == 16 else 32
        if "kv_cache_bits" in self.values and self.values["kv_cache_bits"] != held:
            self.correct(
                "kv_cache_of_engine",
                "kv_cache_bits",
                held,
                f"{ENGINE} keeps its cache at the precision of its arithmetic, {held} bit.",
            )
        self.values["kv_cache_bits"] = held

    def _cache_of_wgsl(self) -> None:
        """Its cache has the width and the length that are asked for; other engines that may run the model have their own."""
        self.values.setdefault("context_length", WGSL_CONTEXT)
        asked = self.values.setdefault("kv_cache_bits", 16)
        if asked in CACHE_BITS and not isinstance(asked, bool):
            return
        number = _number(asked)
        if number is None:
            raise _uncorrectable("kv_cache_bits", f"kv_cache_bits is one of {', '.join(map(str, CACHE_BITS))}, not {asked!r}.")
        near = next((known for known in CACHE_BITS if known >= number), CACHE_BITS[-1])
        self.correct(
            "kv_cache_of_engine",
            "kv_cache_bits",
            near,
            f"The cache holds keys and values at {', '.join(map(str, CACHE_BITS))} bits, not {asked}: {near} was taken.",
        )

    def _rows_of_engine(self, engines: tuple[str, ...]) -> None:
        if engines == (WGSL,) and self.values.get("batch_size", 1) > 1:
            self.correct("batch_of_engine", "batch_size", 1, f"The {WGSL} engine takes one prompt after the other.", "warning")


def _bits(value: Any, what: str) -> int:
    """A number of bits, given as one or as a name: 4, '4bit', 'int4', 'fp16', 'float32'."""
    if isinstance(value, str) and (
        found := re.fullmatch(r"(?:int|uint|float|fp|f|q)?(\d+)(?:[- ]?bits?)?", value.strip().lower())
    ):
        return int(found[1])
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _uncorrectable(
            "precision",
            f"The {what.removeprefix('the ')} is a number of bits ({', '.join(map(str, PRECISION_BITS))}) or auto, not {value!r}.",
        )
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _uncorrectable(rule: str, message: str, remedy: str = "") -> ConfigurationError:
    return ConfigurationError(message, details={"rule": rule}, recovery_actions=(remedy,) if remedy else ())
