"""Optional packages: imported when asked for, and a sentence with the command where one is missing or broken."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from ..errors import UnavailableError
from .base import Available, Unavailable


def install_command(extra: str) -> str:
    return f'pip install "ipfs_accelerate_py[{extra}]"'


def load_extra(module: str, extra: str) -> ModuleType:
    """The imported module, or UnavailableError with the reason and the command that remedies it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise UnavailableError(f"{module} is not installed.", install_command(extra)) from error
        raise UnavailableError(f"{module} is installed but needs {error.name}.", install_command(extra)) from error
    except Exception as error:  # a broken binary package raises OSError, RuntimeError, ...
        reason = f"{module} is installed but does not import: {type(error).__name__}: {error}."
        raise UnavailableError(reason, f"pip install --force-reinstall {module}") from error


def guarded(probe: Callable[[Any], Available | Unavailable]) -> Callable[[Any], Available | Unavailable]:
    """Keeps the promise that a probe never raises: whatever goes wrong becomes the reason that a person reads."""

    @wraps(probe)
    def probe_or_reason(platform: Any) -> Available | Unavailable:
        try:
            return probe(platform)
        except UnavailableError as error:
            return Unavailable(error.reason, error.remedy)
        except Exception as error:  # noqa: BLE001 - drivers fail in any way; the reason is shown
            return Unavailable(
                f"Probing failed: {type(error).__name__}: {error}", "Check the driver and the installed packages."
            )

    return probe_or_reason
