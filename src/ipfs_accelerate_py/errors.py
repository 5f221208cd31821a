"""Errors that a person sees. Each carries one clear sentence, and a remedy where there is one."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked. The command line prints the sentence, without a traceback, and exits with status 2."""


class UnavailableError(Exception):
    """Something that is not to be had on this machine, with the reason and the remedy."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason = reason
        self.remedy = remedy


class LaunchError(Exception):
    """A launch that failed. ``error_class`` is one of ERROR_CLASSES and is stored beside the message."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        assert error_class in ERROR_CLASSES, error_class
        self.error_class = error_class


ERROR_CLASSES = {
    "unsupported": "the platform lacks an operator, a data type or a limit that the model needs",
    "out_of_memory": "host or device memory ran out",
    "timeout": "a phase went over its limit",
    "process_died": "the launch's process ended without a result",
    "browser_start": "the browser did not start or did not connect back",
    "browser_crashed": "the browser process ended during the launch",
    "gpu_process_crashed": "the browser's GPU process ended during the launch",
    "device_lost": "the GPU device or the WebNN context was lost",
    "page_error": "the page raised an error",
    "load_failed": "the model could not be fetched, loaded or compiled",
    "inference_failed": "the model loaded but running it raised an error",
}


MOST_NAMES = 20  # in a sentence


def nearest(name: str, known: Iterable[str], what: str, also: Iterable[str] = ()) -> UserError:
    """The error for an unknown name: one sentence with the nearest known names, or with the first of them where none is near. ``also``
    are names that may be meant too, but are too many to list."""
    import difflib  # for mistakes alone: answers are given without

    known = sorted(known)
    close = difflib.get_close_matches(name, [*known, *also], n=3, cutoff=0.5)
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known[:MOST_NAMES])}{more}."
    return UserError(f"Unknown {what} '{name}': {hint}")
