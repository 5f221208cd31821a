"""Recordings in every form that people have, into waves; and what is refused."""

from __future__ import annotations

import io
import wave as wave_file
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.processing.audio import as_wave, audio_batch, chunks, example_waves, waves_of

RATE = 16_000  # Hz
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)


def pcm(samples: np.ndarray, byte_width: int, rate: int = RATE) -> bytes:
    """A wav file of the standard library's writer; ``samples`` [samples] or [samples, channels] with full scale at 1."""
    scaled = np.clip(np.round(samples * 2 ** (8 * byte_width - 1)), -(2 ** (8 * byte_width - 1)), 2 ** (8 * byte_width - 1) - 1)
    if byte_width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    else:
        data = scaled.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :byte_width].tobytes()
    file = io.BytesIO()
    with wave_file.open(file, "wb") as writer:
        writer.setparams((samples.shape[1] if samples.ndim == 2 else 1, byte_width, rate, 0, "NONE", ""))
        writer.writeframes(data)
    return file.getvalue()


def floats(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


@pytest.mark.parametrize("byte_width", [1, 2, 3, 4])
def test_pcm_of_every_width_gives_the_samples(byte_width: int) -> None:
    """To within one step of its quantisation, and without a note."""
    wave, notes = as_wave(pcm(TONE, byte_width), RATE)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, TONE, atol=max(2.0 ** (1 - 8 * byte_width), 1e-7))
    assert notes == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_wav_gives_the_samples(dtype: type) -> None:
    """Also beyond full scale, which a float file may have."""
    wave, notes = as_wave(floats((3 * TONE).astype(dtype)), RATE)
    np.testing.assert_array_equal(wave, (3 * TONE).astype(dtype).astype(np.float32))
    assert notes == ()


def test_path_bytes_and_array_are_the_same_recording(tmp_path: Path) -> None:
    """A path as text or Path, the file's bytes, its integers and the floats in a pair."""
    path = tmp_path / "tone.wav"
    path.write_bytes(pcm(TONE, 2))
    integers = np.round(TONE * 2**15).astype(np.int16)
    expected = integers / np.float32(2**15)
    for value in (path, str(path), path.read_bytes(), (integers, RATE), (expected, RATE), (expected, np.int64(RATE))):
        np.testing.assert_array_equal(as_wave(value, RATE)[0], expected)


def test_channels_are_averaged_with_a_note() -> None:
    """From a file and from arrays of either layout."""
    both = np.stack([TONE, -TONE / 2], axis=1)
    for value in (pcm(both, 3), (both, RATE), (both.T, RATE)):
        wave, notes = as_wave(value, RATE)
        np.testing.assert_allclose(wave, TONE / 4, atol=1e-6)
        assert notes == ("The 2 channels of the audio were averaged.",)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_another_rate_is_resampled_with_a_note(rate: int) -> None:
    """A tone stays the same tone, away from its ends, and lasts as long."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    wave, notes = as_wave((tone, rate), RATE)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert len(wave) == RATE
    np.testing.assert_allclose(wave[1000:-1000], expected[1000:-1000], atol=2e-3)
    assert notes == (f"The audio was resampled from {rate:,} to 16,000 Hz.",)


def test_resampling_lets_nothing_fold_back() -> None:
    """A tone above half the new rate is gone, not another tone."""
    tone = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000)
    assert np.abs(as_wave((tone, 48_000), RATE)[0][100:-100]).max() < 0.02


with_nan, with_infinity = TONE.copy(), TONE.copy()
with_nan[1600:1610] = np.nan
with_infinity[0] = -np.inf
BAD = [
    ((with_nan, RATE), "10 samples that are not numbers (NaN or infinite), the first at 0.100 s"),
    (floats(with_infinity.astype(np.float32)), "the first at 0.000 s"),
    ((np.zeros(0), RATE), "empty"),
    (pcm(np.zeros(0), 2), "empty"),
    (b"", "not a whole wav file"),
    (b"ID3 this is an mp3, or so it says", "ffmpeg"),
    ("/nowhere/speech.wav", "There is no audio file '/nowhere/speech.wav'"),
    ((np.zeros((2, 3, 4)), RATE), "[2, 3, 4]"),
    ((np.zeros((500, 500)), RATE), "[500, 500]"),
    ((np.float32(1), RATE), "up to 32 channels"),
    (([[0.1, 0.2], [0.3]], RATE), "rows of unequal length"),
    (([0, 1000, -2000], RATE), "64-bit integers do not say what full scale is"),
    ((np.full(3, 1e300), RATE), "3 samples that are not numbers"),
    ((20_000 * TONE, RATE), "floats reach 10,000, and full scale is 1"),
    ("a" * 5000, "There is no audio file 'aaa"),
    ("~nobody-has-this-name/a.wav", "There is no audio file '~nobody"),
    ((TONE > 0, RATE), "these are bool"),
    ((TONE, 0), "0 is not"),
    ((TONE, 16_000.5), "16000.5 is not"),
    ((TONE, float("nan")), "nan is not"),
    (TONE, "an array [8000], which has no sample rate"),
    (None, "of type NoneType"),
]


@pytest.mark.parametrize(("value", "part"), BAD, ids=[part for _, part in BAD])
def test_what_is_no_recording_is_refused_in_one_sentence(value: object, part: str) -> None:
    """Never a traceback of a library."""
    with pytest.raises(UserError) as refused:
        as_wave(value, RATE)
    assert part in str(refused.value)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "whole", [pcm(TONE[:40], 2), pcm(TONE[:40], 3), floats(TONE[:40])], ids=["16 bits", "24 bits", "floats"]
)
def test_a_damaged_file_is_read_or_refused(whole: bytes) -> None:
    """Cut anywhere, or with any byte of its header changed: a wave of numbers or a UserError, nothing else."""
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [
        whole[:place] + bytes([value]) + whole[place + 1 :] for place in range(60) for value in (0, 1, 3, 127, 128, 255)
    ]
    refused = 0
    for data in damaged:
        try:
            wave, _ = as_wave(data, RATE)
            assert wave.ndim == 1 and len(wave) and np.isfinite(wave).all()
        except UserError:
            refused += 1
    assert refused > 44  # every cut within the header is one


def test_a_file_that_was_cut_off_is_said_to_be() -> None:
    """A whole number of samples is left, which no decoder refuses."""
    whole = pcm(TONE, 2)
    wave, notes = as_wave(whole[:-2000], RATE)
    assert len(wave) == len(TONE) - 1000
    assert notes == (
        f"The audio of {len(whole) - 2000:,} bytes ends before its header says: the {len(wave):,} samples that are there were taken.",
    )
    assert as_wave(whole, RATE)[1] == ()


def test_one_pair_is_one_recording_and_a_list_is_a_batch() -> None:
    """``(array, rate)`` is not taken for a batch of two; other inputs are left alone."""
    assert audio_batch({"audio": (TONE, RATE), "text": ("a", "b")}) == {"audio": [(TONE, RATE)], "text": ("a", "b")}
    pairs = [(TONE, RATE), (TONE, RATE)]
    assert audio_batch({"audio": pairs})["audio"] is pairs
    waves, notes = waves_of([(TONE, 8_000), (TONE, 8_000), (TONE, RATE)], RATE)
    assert [len(wave) for wave in waves] == [RATE, RATE, RATE // 2]
    assert len(notes) == 1


@given(samples=st.integers(1, 200), length=st.integers(1, 50), overlap=st.integers(0, 49))
def test_chunks_hold_every_sample_at_its_place(samples: int, length: int, overlap: int) -> None:
    """And zeros after the end; none is without a sample of its own."""
    step = max(1, length - overlap)
    wave = np.arange(1, samples + 1, dtype=np.float32)
    rows = chunks(wave, length, step)
    seen = set()
    for index, row in enumerate(rows):
        expected = np.arange(index * step + 1, index * step + length + 1)
        np.testing.assert_array_equal(row, np.where(expected <= samples, expected, 0))
        before = len(seen)
        seen |= set(row[row > 0].tolist())
        assert len(seen) > before
    assert len(seen) == samples


def test_example_waves_follow_from_the_seed() -> None:
    """The same twice, another with another seed, each of the batch different, all within full scale."""
    waves = example_waves(2, 0.2, RATE, 0)
    assert [len(wave) for wave in waves] == [3200, 3200]
    np.testing.assert_array_equal(waves, example_waves(2, 0.2, RATE, 0))
    assert np.abs(waves[0] - waves[1]).max() > 0.01
    assert np.abs(waves[0] - example_waves(1, 0.2, RATE, 1)[0]).max() > 0.01
    assert np.abs(waves).max() < 1
