"""Recordings as people have them (a wav file, or samples with their rate) into waves as models take them: mono, float32, one rate."""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...lazy_numpy import np
from ..rows import row_generators
from .files import read_bytes

if TYPE_CHECKING:
    import torch

MOST_CHANNELS = 32
LOUDEST = 8  # times full scale: beyond it, floats are PCM numbers that nobody scaled
RATES = range(1_000, 1_000_001)  # Hz; what is outside is a slip, and resampling from it would need absurd filters


def as_wave(value: Any, sample_rate: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Float32 [samples] at ``sample_rate``, full scale at 1, and what was corrected, a sentence each.

    ``value`` is the path or the bytes of a wav file (PCM of 8, 16, 24 or 32 bits, or floats), or ``(array, rate)`` with an array
    [samples], [samples, channels] or [channels, samples]; integers are PCM. Channels are averaged; another rate is resampled by
    a polyphase filter. UserError for what is no recording, is empty, has samples that are not numbers, or has floats above LOUDEST.
    """
    file_notes: tuple[str, ...] = ()
    if isinstance(value, str | Path | bytes | bytearray):
        samples, rate, file_notes = _read_wav(value)
    elif is_pair(value):
        samples, rate = _samples(value[0]), value[1]
    else:
        raise UserError(
            f"Audio is a wav file (path or bytes) or a pair (array, sample rate); this is {_kind(value)}, which has no sample rate."
        )
    if not math.isfinite(rate) or int(rate) != rate or int(rate) not in RATES:
        raise UserError(f"A sample rate is a whole number of Hz from {RATES[0]:,} to {RATES[-1]:,}; {rate} is not.")
    wave, notes = _mono(_full_scale(samples))
    notes = file_notes + notes
    finite = np.abs(wave) <= np.finfo(np.float32).max
    if not finite.all():
        first = int(np.argmin(finite)) / rate
        raise UserError(
            f"The audio has {np.count_nonzero(~finite):,} samples that are not numbers (NaN or infinite), the first at {first:.3f} s; "
            "they have to be repaired or cut out."
        )
    if (peak := np.abs(wave).max()) > LOUDEST:
        raise UserError(
            f"The audio's floats reach {peak:,.0f}, and full scale is 1: give PCM samples as integers, or divide 16-bit ones by 32,768."
        )
    if rate != sample_rate:
        from scipy.signal import resample_poly

        common = math.gcd(int(rate), sample_rate)
        wave = resample_poly(wave, sample_rate // common, int(rate) // common)
        notes += (f"The audio was resampled from {rate:,} to {sample_rate:,} Hz.",)
    return wave.astype(np.float32), notes


def is_pair(value: Any) -> bool:
    """Whether ``value`` is one recording as ``(array, rate)``, and not a batch of two."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int | float | np.number)


def audio_batch(raw: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` for ``check_raw``, which takes a tuple for a batch: a single ``(array, rate)`` becomes a batch of one."""
    return {name: [value] if name == "audio" and is_pair(value) else value for name, value in raw.items()}


def waves_of(recordings: list[Any], sample_rate: int) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """``as_wave`` of each; a note that several share is given once."""
    pairs = [as_wave(recording, sample_rate) for recording in recordings]
    return [wave for wave, _ in pairs], tuple(dict.fromkeys(note for _, notes in pairs for note in notes))


def chunks(wave: np.ndarray, length: int, step: int | None = None) -> np.ndarray:
    """Rows [chunks, length] that start every ``step`` samples (default: ``length``) until the wave [samples] ends, the last with zeros.

    A wave that is not longer than ``length`` is one chunk.
    """
    step = step or length
    count = 1 + max(0, math.ceil((len(wave) - length) / step))
    padded = np.pad(wave, (0, max(0, (count - 1) * step + length - len(wave))))
    return np.stack([padded[index * step : index * step + length] for index in range(count)])


def recorded(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Recordings [samples] of any length as arrays with a row each: ``samples`` float32 [rows, longest], ``lengths`` int32 [rows]."""
    lengths = np.array([len(row) for row in rows], np.int32)
    samples = np.zeros((len(rows), int(lengths.max())), np.float32)
    for place, row in zip(samples, rows, strict=True):
        place[: len(row)] = row
    return {"samples": samples, "lengths": lengths}


def chunk_notes(waves: list[np.ndarray], length: int, sample_rate: int, overlap: int = 0) -> tuple[str, ...]:
    """What ``chunks`` does to these waves, in words."""
    seconds = f"{length / sample_rate:g} s"
    notes: tuple[str, ...] = ()
    if any(len(wave) < length for wave in waves):
        notes += (f"Audio shorter than {seconds} was padded with silence.",)
    if any(len(wave) > length for wave in waves):
        shared = f", which overlap by {overlap / sample_rate:.1f} s" if overlap else ""
        notes += (f"Audio longer than {seconds} was cut into chunks of {seconds}{shared}, each a row of the batch.",)
    return notes


def example_waves(count: int, seconds: float, sample_rate: int, seed: int) -> list[np.ndarray]:
    """Seeded waves, float64 [samples]: a voice-like harmonic tone whose pitch drifts, in syllables, with noise."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    waves = []
    for generator in row_generators(seed, count):
        pitch = generator.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * generator.uniform(0.2, 0.8) * time))  # Hz
        phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 9))
        syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2, 5) * time), 0, None)
        waves.append(0.2 * voice * syllables + generator.normal(0, 0.005, time.shape))
    return waves


def example_labels(signal: torch.Tensor, count: int, first: int, last: int) -> torch.Tensor:
    """Labels for training that follow from the input alone: int64 [batch, count] of ``first`` to ``last`` - 1.

    ``signal`` [batch, ...] is cut into ``count`` stretches; the low digits of a stretch's mean choose its label.
    """
    import torch

    stretches = torch.tensor_split(signal.detach().flatten(1).double(), count, dim=1)
    means = torch.stack([stretch.mean(1) for stretch in stretches], 1)
    return first + (means * 1e6).long().remainder(last - first)


def _samples(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as ragged:
        raise UserError(
            "Audio samples are an array [samples] or [samples, channels]; these are rows of unequal length."
        ) from ragged


def _read_wav(value: str | Path | bytes | bytearray) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Samples [samples] or [samples, channels] in the file's type, its rate in Hz, and a note where the file was cut off."""
    from scipy.io import wavfile

    if isinstance(value, str | Path):
        what = f"'{value}'"
        value = read_bytes(value, "audio")
    else:
        what = f"The audio of {len(value):,} bytes"
    try:
        with warnings.catch_warnings(record=True) as said:  # mostly of chunks that are not sound: titles, editors' marks
            warnings.simplefilter("always", wavfile.WavFileWarning)
            rate, samples = wavfile.read(io.BytesIO(value))
    except (ValueError, TypeError, IndexError, ZeroDivisionError, UnboundLocalError, struct.error) as broken:
        raise UserError(
            f"{what} is not a whole wav file of PCM or float samples ({broken}); convert it: ffmpeg -i INPUT OUTPUT.wav."
        ) from broken
    if any("premature" in str(warning.message) for warning in said):
        return samples, rate, (f"{what} ends before its header says: the {len(samples):,} samples that are there were taken.",)
    return samples, rate, ()


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Floating-point samples, full scale at 1; PCM of 8 bits is unsigned, and scipy shifts 24 bits to the top of 32."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128) / 128
    if samples.dtype == np.int64:  # what NumPy makes of a list, or of arithmetic: its full scale is not the recording's
        raise UserError(
            "Audio samples of 64-bit integers do not say what full scale is: convert them to int16, or what they were."
        )
    if np.issubdtype(samples.dtype, np.signedinteger):
        return samples / -float(np.iinfo(samples.dtype).min)
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float64)
    raise UserError(f"Audio samples are floats, signed integers or unsigned bytes; these are {samples.dtype}.")


def _mono(samples: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if samples.size == 0:
        raise UserError("The audio is empty: it has no samples.")
    if samples.ndim == 2 and min(samples.shape) <= MOST_CHANNELS:
        channels = min(samples.shape)
        wave = samples.mean(axis=int(np.argmin(samples.shape)))
        return wave, (f"The {channels} channels of the audio were averaged.",) if channels > 1 else ()
    if samples.ndim != 1:
        raise UserError(
            f"Audio samples are an array [samples] or [samples, channels] with up to {MOST_CHANNELS} channels; "
            f"this one is {list(samples.shape)}."
        )
    return samples, ()


def _kind(value: Any) -> str:
    return f"an array {list(value.shape)}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
