"""The switches of the web optimisations, and what the page must know to follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..errors import UnavailableError
from ..models.prepared import Graph
from .browsers import Browser
from .chunks import CHUNK_BYTES, chunk_spec
from .protocol import AudioSpec, Optimizations, RecordedPipeline
from .remembered import tuned_numbers
from .site import STATIC

Readback = Literal["plain", "woken", "auto"]


@dataclass(frozen=True)
class Switches:
    """All off is the usual way.

    ``precompilation``: shaders compile before the first inference: all at once from the beginning with pipelines of an earlier session;
    otherwise with ``parallel_loading``, where the shapes are known, while the weights still arrive; otherwise by a first pass at the end
    of loading.
    ``gpu_audio``: the audio front end as compute shaders.
    ``parallel_loading``: chunks at once, each checked; sessions are created as soon as theirs are there; the runtime comes compressed.
    ``readback``: ``woken`` makes Firefox look for finished work at once; ``auto`` tries on the adapter what is faster.
    ``keep``: a profile that stays, with the model's chunks and the compiled shaders in it.
    """

    precompilation: bool = False
    gpu_audio: bool = False
    parallel_loading: bool = False
    readback: Readback = "plain"
    keep: bool = False


def optimizations(
    switches: Switches,
    browser: Browser,
    folder: Path,
    graphs: Mapping[str, Graph],
    *,
    pipelines: Sequence[RecordedPipeline] = (),
    audio: AudioSpec | None = None,
    sample_rate: int = 0,
    zero_bytes: Mapping[str, int] | None = None,
    tuned: Mapping[str, int] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Optimizations:
    """For the ``graphs`` of ``folder`` in ``browser``. ``tuned`` is what earlier sessions remembered unless given. Raises LaunchError
    (load_failed) where a file is missing, UnavailableError where the runtime is not built."""
    return Optimizations(
        **asdict(switches),
        audio=audio,
        sample_rate=sample_rate,
        chunks=chunk_spec(folder, graphs, chunk_bytes) if switches.parallel_loading else None,
        zero_bytes=dict(zero_bytes or {}),
        runtime_query=f"?v={build()[:16]}&gzip" if switches.parallel_loading else "",
        tuned=tuned_numbers(browser) if tuned is None else dict(tuned),
        pipelines=tuple(pipelines) if switches.precompilation else (),
    )


def build() -> str:
    """Identity of the page's runtime."""
    stamp = STATIC / "BUILD"
    if not stamp.is_file():
        raise UnavailableError("The browser runtime is not built.", "Run: npm ci && npm run build in the folder browser.")
    return stamp.read_text().strip()
