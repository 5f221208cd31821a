"""The trained low-bit model that the package carries, so that text can be written on a machine without a hub."""

from __future__ import annotations

from pathlib import Path

FOLDERS = {"llama": Path(__file__).parents[1] / "embedded" / "llama"}


def embedded_folder(name: str, size: str | None, weights: str) -> Path | None:
    """The package's own folder of low-bit weights for the bare name of a class; None for another name, a preset of the class (``size``)
    or synthetic weights. Its README.md says what it was made of."""
    return FOLDERS.get(name) if size is None and weights != "synthetic" else None
