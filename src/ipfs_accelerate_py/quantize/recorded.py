"""Perplexities of one run as rows of a store: each format beside the float weights on the same windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..measure.machine import fingerprint
from ..store.quality import OURS, REFERENCE, QualityRow, QualitySession, add_quality
from . import architecture
from .folder import windows_digest
from .quality import Quality
from .sources import Source

FLOAT_BITS = 32.0  # weights and cache of the reference are float32 while they are computed


class QualityLog:
    """Writes each format to the store as soon as it is known, so that a run that is stopped leaves what it measured. Without a ``store``
    (None: nobody asked for it) it writes nothing.

    ``windows`` int64 [windows, length] are those of ``reference``, the float weights' quality; ``facts`` go into every row.
    """

    def __init__(self, store: Path | None, source: Source, windows: np.ndarray, reference: Quality, **facts: Any) -> None:
        self._store, self._facts = store, {"window_tokens": windows.shape[1], **facts}
        if store is None:
            return
        self._session = QualitySession(
            model=model_name(source),
            origin=source.origin,
            windows_sha256=windows_digest(windows) or "",
            machine=fingerprint(),
        )
        self.add(REFERENCE, FLOAT_BITS, reference, is_reference=True)

    def add(self, name: str, bits_per_weight: float, found: Quality, *, made_by: str = OURS, **fields: Any) -> None:
        """One format; ``fields`` as of ``QualityRow`` (``solver``, ``bits_per_cached_value``)."""
        if self._store is None:
            return
        row = QualityRow(
            format=name,
            bits_per_weight=bits_per_weight,
            nats=found.nats.tolist(),
            tokens=found.tokens,
            made_by=made_by,
            facts=self._facts,
            **fields,
        )
        add_quality(self._store, self._session, [row])


def model_name(source: Source) -> str:
    """``llama, 19.9 million weights``: what a model folder, whose name is its user's affair, is called in a store."""
    millions = architecture.float16_bytes(source.config) / 2e6
    return f"{source.config['model_type']}, {millions:.3g} million weights"
