"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Prepared models and downloaded browsers: ``$IPFS_ACCELERATE_CACHE``, else ``ipfs_accelerate_py`` in the user's cache folder."""
    if chosen := os.environ.get("IPFS_ACCELERATE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipfs_accelerate_py"


def reference_folders() -> list[Path]:
    """The exports of reference measurements: those inside the package, else those of the repository that it runs from."""
    package = Path(__file__).parent
    places = (package / "reference", package.parents[1] / "data" / "reference")
    found = next((place for place in places if place.is_dir()), None)
    return sorted(file.parent for file in found.glob("*/manifest.json")) if found else []
