"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Prepared models and downloaded browsers: ``$IPFS_ACCELERATE_CACHE``, else ``ipfs_accelerate_py`` in the user's cache folder."""
    if chosen := os.environ.get("IPFS_ACCELERATE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipfs_accelerate_py"
