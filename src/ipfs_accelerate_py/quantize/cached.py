"""Low-bit weights in the cache folder: made once for the same weights and the same request, whoever asks first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..paths import cache_folder
from .folder import Progress, Request, quantize_folder
from .sources import Source

GROUP_SIZE = 64


def cached_folder(source: Source, request: Request, on_progress: Callable[[Progress], None] = lambda _: None) -> Path:
    """The folder of what ``request`` makes of ``source``, which has a text-free solver; shards that are there already are checked.

    Raises UserError as quantize_folder does.
    """
    asked = json.dumps([asdict(request), dict(source.config)], sort_keys=True, default=str)
    folder = cache_folder() / "quantized" / hashlib.sha256(asked.encode()).hexdigest()[:24]
    quantize_folder(source, request, folder, on_progress=on_progress)
    return folder
