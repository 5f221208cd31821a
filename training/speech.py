"""Spoken phrases of a small vocabulary, synthesised by espeak-ng in many voices: the data of the transcriber.

    python training/speech.py OUT

writes OUT/speech.json (what is said, by whom, where) and OUT/speech.u8.xz (all phrases in a row, 16 kHz, 8-bit mu-law), and the
held-out phrases for the tests as OUT/NAME.wav. Held-out phrases are word combinations that training lacks, in voices that it lacks.
"""

from __future__ import annotations

import json
import lzma
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

SAMPLE_RATE = 16_000  # Hz
WORD_LIST = (
    "zero one two three four five six seven eight nine yes no stop go left right up down on off open close start "
    "begin play pause next back light door window music red green blue yellow water fire house garden"
)
WORDS = WORD_LIST.split()
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m7", "+f1", "+f2", "+f3", "+f5")
HELD_OUT_VOICES = ("en-us+m6", "en-gb+f4", "en-gb-x-gbcwmd+m3", "en-us+m8")
TRAINING_PHRASES = 2600
HELD_OUT_PHRASES = 200
SHIPPED = 6  # of the held-out ones, as wav files for the tests
MOST_S = 3.5


def speak(phrase: str, voice: str, words_per_minute: int, pitch: int) -> np.ndarray:
    """float64 [samples] in [-1, 1] at 16 kHz, silence at its ends cut off."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", phrase]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    # Written to a pipe, its header has no length; the data are what follows the 44 bytes of it.
    rate = int.from_bytes(wav[24:28], "little")
    samples = np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], "<i2") / 32768
    samples = resample_poly(samples, SAMPLE_RATE, rate)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return np.clip(samples[max(loud[0] - 400, 0) : loud[-1] + 800], -1, 1)


def mu_law(samples: np.ndarray) -> np.ndarray:
    """ITU-T G.711's curve: uint8 [samples]"""
    compressed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    return np.round((compressed + 1) / 2 * 255).astype(np.uint8)


def phrases(generator: random.Random, voices: list[str], count: int, taken: set[str], shortest: int) -> list[dict[str, object]]:
    """Seeded phrases of ``shortest`` to 4 words, none of them ``taken``; every word comes equally often."""
    made: list[dict[str, object]] = []
    deck: list[str] = []
    while len(made) < count:
        length = generator.randint(shortest, 4)
        if len(deck) < length:
            deck += generator.sample(WORDS, len(WORDS))
        phrase = " ".join(deck.pop() for _ in range(length))
        if phrase in taken:
            continue
        voice = voices[len(made) % len(voices)]
        row = {"text": phrase, "voice": voice, "speed": generator.randint(125, 210), "pitch": generator.randint(20, 80)}
        made.append(row)
    return made


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    voices = [accent + variant for accent in ACCENTS for variant in VARIANTS]
    held_out = phrases(generator, list(HELD_OUT_VOICES), HELD_OUT_PHRASES, set(), 2)
    training = phrases(generator, voices, TRAINING_PHRASES, {str(row["text"]) for row in held_out}, 1)
    rows, parts, start = [], [], 0
    for split, listed in (("training", training), ("held_out", held_out)):
        for row in listed:
            samples = speak(str(row["text"]), str(row["voice"]), int(str(row["speed"])), int(str(row["pitch"])))
            if len(samples) > MOST_S * SAMPLE_RATE:
                continue
            if split == "held_out" and sum(other["split"] == "held_out" for other in rows) < SHIPPED:
                name = str(row["text"]).replace(" ", "-")
                wavfile.write(out / f"{name}.wav", SAMPLE_RATE, np.round(samples * 32767).astype(np.int16))
            rows.append({**row, "split": split, "start": start, "samples": len(samples)})
            parts.append(mu_law(samples))
            start += len(samples)
    everything = np.concatenate(parts)
    (out / "speech.json").write_text(json.dumps(rows))
    (out / "speech.u8.xz").write_bytes(lzma.compress(everything.tobytes(), preset=6))
    print(f"{len(rows)} phrases, {len(everything) / SAMPLE_RATE / 60:.0f} minutes")


if __name__ == "__main__":
    main()
