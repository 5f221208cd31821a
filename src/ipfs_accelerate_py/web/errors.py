"""Errors of the web platform. Each says in one sentence what happened, how bad that is, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..errors import LaunchError, UserError

Severity = Literal["warning", "error", "fatal"]  # fatal: nothing that this platform object does can help


class WebPlatformError(Exception):
    """``message`` is a sentence, ``details`` are JSON-serialisable facts, ``recovery_actions`` are sentences, the best one first."""

    default_severity: Severity = "error"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        severity: Severity | None = None,
        recovery_actions: Sequence[str] = (),
    ) -> None:
        super().__init__(" ".join([message, *recovery_actions[:1]]))
        self.message = message
        self.details = dict(details or {})
        self.severity: Severity = severity or self.default_severity
        self.recovery_actions = tuple(recovery_actions)

    def to_dict(self) -> dict[str, Any]:
        return {
            "error": type(self).__name__,
            "message": self.message,
            "details": self.details,
            "severity": self.severity,
            "recovery_actions": list(self.recovery_actions),
        }


class ConfigurationError(WebPlatformError, UserError):
    """What was asked for cannot be; told before a browser starts."""

    default_severity = "fatal"


class BrowserCompatibilityError(WebPlatformError):
    """No browser that is here can be started or has what is asked for."""


class HardwareError(WebPlatformError):
    """The device ran out of memory, was lost, or is too small."""


class ModelError(WebPlatformError):
    """The model, or an input of it, cannot be used: not found, damaged, of another kind."""


class ShardingError(WebPlatformError):
    """A model that would have to be split cannot be."""


class WebRuntimeError(WebPlatformError):
    """The page or the browser failed while it worked."""


_KINDS: dict[str, type[WebPlatformError]] = {
    "unsupported": BrowserCompatibilityError,
    "browser_start": BrowserCompatibilityError,
    "out_of_memory": HardwareError,
    "device_lost": HardwareError,
    "gpu_process_crashed": HardwareError,
    "load_failed": ModelError,
}
_ACTIONS: dict[str, tuple[str, ...]] = {
    "unsupported": (
        "Name another platform or precision.",
        "Name another browser (ipfs-accelerate detect shows what each has).",
    ),
    "browser_start": ("Run 'ipfs-accelerate browsers --install'.", "Name another browser."),
    "out_of_memory": ("Give fewer items at once, or set a smaller batch_size.", "Set a lower precision or context_length."),
    "device_lost": ("Try again: the device is opened anew.", "Use platform='wasm', which needs no device."),
    "gpu_process_crashed": ("Try again in a new browser.", "Use platform='wasm', which needs no GPU process."),
    "load_failed": ("Load again; where it repeats, remove the model's folder from the cache so that it is made anew.",),
    "timeout": ("Raise timeout_s.", "Give shorter or fewer inputs."),
}


def from_launch_error(error: LaunchError, **details: Any) -> WebPlatformError:
    """The platform's error for what a page or a browser reported; the class of the report stays in ``details``."""
    kind = _KINDS.get(error.error_class, WebRuntimeError)
    return kind(
        str(error),
        details={"error_class": error.error_class, **details},
        recovery_actions=_ACTIONS.get(error.error_class, ("Try again in a new browser.",)),
    )
