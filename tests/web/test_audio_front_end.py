"""The page's audio front ends against transformers' feature extractors, in every browser with WebGPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from product_model import require

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.models.processing.audio import as_wave, example_waves
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.audio_front_end import audio_spec
from ipfs_accelerate_py.web.page_session import Page

TOLERANCE = 1e-4  # of the largest feature
LIMIT_S = 300


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """One page in each browser for all tests of this file."""
    with Page(require(request.param)) as page:
        yield page


def config_of(model_class: str, size: str = "tiny") -> Any:
    named = model_classes()[model_class]
    return named.config(named.sizes[size].config)


def waves(*lengths: int, rate: int = 16_000) -> list[np.ndarray]:
    """Voice-like recordings, float32, of these lengths in samples."""
    return [
        example_waves(1, (length + 1) / rate, rate, seed)[0][:length].astype(np.float32) for seed, length in enumerate(lengths)
    ]


def features(
    page: Page, spec: protocol.AudioSpec, recordings: list[np.ndarray], where: str = "gpu", **options: Any
) -> np.ndarray:
    """What the page makes of the recordings."""
    rate = options.pop("sample_rate", spec.rate)
    request = protocol.AudioFeatures(audio=spec, sample_rate=rate, where=where, **options)  # type: ignore[arg-type]
    tensors = {
        "samples": np.concatenate([*recordings, np.zeros(0, np.float32)]).astype(np.float32),
        "lengths": np.array([len(wave) for wave in recordings], np.int32),
    }
    _, made = page.ask(request, protocol.Sampled, "features", LIMIT_S, tensors)
    return made["features"]


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def whisper_spec(seconds: int) -> protocol.AudioSpec:
    """The published Whisper front end at another length than 30 s, so that software adapters are done in seconds."""
    spec = audio_spec("whisper", config_of("whisper", "small"))
    assert (spec.samples, spec.mels, spec.window, spec.hop) == (480_000, 80, 400, 160)
    return replace(spec, samples=seconds * 16_000, row_step=seconds * 16_000)


def whisper_features(spec: protocol.AudioSpec, rows: list[np.ndarray]) -> np.ndarray:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=spec.mels, chunk_length=spec.samples // 16_000)
    return np.asarray(extractor(rows, sampling_rate=16_000, return_tensors="np")["input_features"])


def test_every_kernel_compiles(page: Page):
    """All kernels in all variants that the adapter has the features for pass the browser's own compiler (Tint in Chromium, Naga in
    Firefox)."""
    reply, _ = page.ask(protocol.CompileKernels(), protocol.Facts, "compiling", LIMIT_S)
    kernels, features = reply.facts["kernels"], reply.facts["features"]
    half, subgroups = 1 + ("shader-f16" in features), 1 + ("subgroups" in features)
    # four workgroup sizes each; the spectrogram at three window lengths; four of them write features
    assert len(kernels) == 4 * (3 + 3 * half + 3 * half * subgroups)
    assert {name: error for name, error in kernels.items() if error} == {}


@pytest.mark.parametrize("where", ["gpu", "cpu"])
@pytest.mark.parametrize("lengths", [[80_000], [79_999], [1], [161, 48_001, 80_000, 7, 399, 400, 401, 23_456]])
def test_whisper_equals_transformers(page: Page, where: str, lengths: list[int]):
    """5 s, one sample less, one sample alone, and a batch of 8 odd lengths: zero padding and reflection at both ends are right."""
    spec = whisper_spec(5)
    assert_equal(features(page, spec, waves(*lengths), where), whisper_features(spec, waves(*lengths)))


def test_a_long_recording_becomes_rows(page: Page):
    """12.5 s are three rows of 5 s, the last one padded; each has a peak of its own, as when Python cuts."""
    spec, wave = whisper_spec(5), waves(200_001)[0]
    rows = [wave[:80_000], wave[80_000:160_000], wave[160_000:]]
    assert_equal(features(page, spec, [wave]), whisper_features(spec, rows))


def test_thirty_seconds_with_128_mel_bins(page: Page):
    """The whole published length, with the mel bins of whisper-large-v3."""
    spec, wave = replace(whisper_spec(30), mels=128), waves(470_001)
    assert_equal(features(page, spec, wave), whisper_features(spec, wave))


@pytest.mark.parametrize("threads", [32, 64, 128, 256])
def test_every_workgroup_size_gives_the_same(page: Page, threads: int):
    """The size is a matter of speed alone."""
    spec = whisper_spec(1)
    assert_equal(features(page, spec, waves(15_000, 9_001), threads=threads), whisper_features(spec, waves(15_000, 9_001)))


def features_of_adapter(page: Page) -> list[str]:
    return page.ask(protocol.Detect(), protocol.Facts, "detection", LIMIT_S)[0].facts["webgpu"]["features"]


def made_or_refused(
    page: Page, feature: str, spec: protocol.AudioSpec, recordings: list[np.ndarray], **options: Any
) -> np.ndarray:
    """The features; where the adapter lacks what the variant needs, a skip after its refusal was seen."""
    if feature in features_of_adapter(page):
        return features(page, spec, recordings, **options)
    with pytest.raises(LaunchError, match=f"needs {feature}, which the WebGPU adapter lacks") as raised:
        features(page, spec, recordings, **options)
    assert raised.value.error_class == "unsupported"
    pytest.skip(f"{page.browser.name}'s adapter has no {feature}")


@pytest.mark.parametrize("threads", [32, 64, 128, 256])
def test_subgroups_give_the_same(page: Page, threads: int):
    """The loudest value of a frame by subgroups is the one by atomics, bit by bit, in a batch of rows with other peaks."""
    spec, recordings = whisper_spec(1), [0.01 * waves(15_000)[0], *waves(9_001, 7)]
    found = made_or_refused(page, "subgroups", spec, recordings, threads=threads, subgroups=True)
    assert np.array_equal(found, features(page, spec, recordings, threads=threads))


@pytest.mark.parametrize("kind", ["whisper", "clap", "fusion", "wav2vec2"])
def test_float16_features_are_the_rounded_ones(page: Page, kind: str):
    """Each kind's last kernel writes float16, of an odd number of values too; the arithmetic before it stays float32."""
    spec, recordings = {
        "whisper": lambda: (whisper_spec(1), waves(15_000, 9_001)),
        "clap": lambda: (clap_spec(), waves(20_001, rate=48_000)),
        "fusion": lambda: (clap_spec(truncation="fusion"), waves(150_001, 30_000, rate=48_000)),
        "wav2vec2": lambda: (replace(audio_spec("wav2vec2", config_of("wav2vec2")), row_step=0, samples=9_001), waves(9_001)),
    }[kind]()
    found = made_or_refused(page, "shader-f16", spec, recordings, dtype="float16")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, features(page, spec, recordings), rtol=2**-10, atol=1e-6)


def test_silence_is_finite(page: Page):
    """Digital silence: the logarithm's floor everywhere, as in transformers."""
    spec, silence = whisper_spec(1), [np.zeros(16_000, np.float32)]
    assert_equal(features(page, spec, silence), whisper_features(spec, silence))


@pytest.mark.parametrize("where", ["gpu", "cpu"])
@pytest.mark.parametrize(("lengths", "repeats"), [([50_000], 1), ([3_200, 1_000, 7_777, 12_345, 401, 3_199, 3_201, 64_000], 1)])
def test_wav2vec2_rows_equal_pythons(page: Page, where: str, lengths: list[int], repeats: int):
    """Mean 0 and variance 1 of each whole recording, overlapping rows as models/wav2vec2.py cuts them, zeros after the end."""
    from transformers import Wav2Vec2FeatureExtractor

    from ipfs_accelerate_py.models.processing.audio import chunks

    spec = audio_spec("wav2vec2", config_of("wav2vec2"))
    recordings = [3 * wave + 0.25 for wave in waves(*lengths)]  # neither centred nor scaled
    values = [Wav2Vec2FeatureExtractor()(wave, sampling_rate=16_000)["input_values"][0] for wave in recordings]
    expected = np.concatenate([chunks(np.asarray(value), spec.samples, spec.row_step) for value in values])
    assert_equal(features(page, spec, recordings, where), expected)


def test_a_very_long_recording_keeps_its_digits(page: Page):
    """10 minutes with an offset: a plain float32 sum of ten million samples would be wrong in the third digit."""
    spec = replace(audio_spec("wav2vec2", config_of("wav2vec2")), row_step=0)
    wave = np.tile(waves(160_000)[0], 60) + np.float32(5)
    expected = (wave.astype(np.float64) - wave.mean(dtype=np.float64)) / np.sqrt(wave.var(dtype=np.float64) + 1e-7)
    assert_equal(features(page, spec, [wave]), expected[None, : spec.samples])


def clap_spec(**settings: Any) -> protocol.AudioSpec:
    return audio_spec("clap", config_of("clap", "base"), {"max_length_s": 2, **settings})


def clap_features(spec: protocol.AudioSpec, recordings: list[np.ndarray]) -> np.ndarray:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        frequency_min=50, max_length_s=2, truncation="fusion" if spec.fusion else "rand_trunc", padding="repeatpad"
    )
    made = extractor([wave.astype(np.float64) for wave in recordings], sampling_rate=48_000, return_tensors="np")
    return np.asarray(made["input_features"])


@pytest.mark.parametrize("where", ["gpu", "cpu"])
def test_clap_equals_transformers(page: Page, where: str):
    """Windows of 1024 in decibels: a short recording is repeated as often as it fits, then padded with silence."""
    spec, recordings = clap_spec(), waves(96_000, 95_999, 20_001, 513, rate=48_000)
    assert (spec.window, spec.hop, spec.mels) == (1024, 480, 64)
    assert_equal(features(page, spec, recordings, where), clap_features(spec, recordings))


def test_clap_takes_the_beginning_of_a_long_recording(page: Page):
    """As models/clap.py does, where transformers takes a random stretch."""
    spec, long = clap_spec(), waves(150_000, rate=48_000)[0]
    assert_equal(features(page, spec, [long]), clap_features(spec, [long[:96_000]]))


@pytest.mark.parametrize("where", ["gpu", "cpu"])
def test_claps_fusion_equals_transformers(page: Page, where: str, monkeypatch: pytest.MonkeyPatch):
    """A long recording: shrunk spectrogram and three crops; one just above the length, and a short one: four times the same."""
    spec = clap_spec(truncation="fusion")
    recordings = waves(300_001, 96_100, 30_000, rate=48_000)
    fractions = (0.3, 0.0, 0.99)
    drawn = iter(fractions)
    monkeypatch.setattr(np.random, "choice", lambda values: values[int(next(drawn) * len(values))])
    expected = clap_features(spec, recordings)
    assert_equal(features(page, spec, recordings, where, crops=fractions), expected)


@pytest.mark.parametrize("where", ["gpu", "cpu"])
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 22_051])
def test_resampling_equals_scipy(page: Page, where: str, rate: int):
    """The polyphase filter of ``as_wave``, up and down, rates with and without a common divisor, a batch of unequal lengths."""
    spec = replace(audio_spec("wav2vec2", config_of("wav2vec2")), standardise=False, row_step=0, samples=9_000)
    recordings = waves(11_111, 5_003, rate=rate)
    expected = np.zeros((2, 9_000), np.float32)
    for row, wave in zip(expected, recordings, strict=True):
        resampled = as_wave((wave, rate), 16_000)[0][:9_000]
        row[: len(resampled)] = resampled
    assert_equal(features(page, spec, recordings, where, sample_rate=rate), expected)


@pytest.mark.parametrize("where", ["gpu", "cpu"])
def test_what_cannot_be_is_refused(page: Page, where: str):
    """No recording, an empty one, lengths that do not fit: a sentence each, and the page goes on working."""
    spec = whisper_spec(1)
    made = partial(features, page, spec, where=where)
    with pytest.raises(LaunchError, match=re.escape("Recording 1 is empty: it has no samples.")):
        made([*waves(100), np.zeros(0, np.float32)])
    with pytest.raises(LaunchError, match=re.escape("There is no recording.")):
        made([])
    with pytest.raises(LaunchError, match="more than 200 samples"):
        features(page, replace(spec, samples=160), waves(100), "gpu")
    assert made(waves(100)).shape == (1, 80, 100)


def test_too_long_for_the_adapter_says_so(page: Page):
    """What exceeds the adapter's buffers is refused with the sizes, not computed in part."""
    spec = replace(whisper_spec(1), samples=2**31, row_step=0)
    with pytest.raises(LaunchError, match="this adapter's buffers end at") as raised:
        features(page, spec, waves(100))
    assert raised.value.error_class == "unsupported"


def test_tuning_stays_in_its_budget_and_says_what_it_tried(page: Page):
    """Every candidate that was tried has its times; with no time at all the default stays."""
    spec = whisper_spec(1)
    tensors = {"samples": waves(16_000)[0], "lengths": np.array([16_000], np.int32)}

    def ask(budget_ms: int) -> dict[str, Any]:
        request = protocol.Tune(audio=spec, sample_rate=16_000, budget_ms=budget_ms)
        return page.ask(request, protocol.Facts, "tuning", LIMIT_S, tensors)[0].facts

    tuned = ask(60_000)
    assert not tuned["cut_short"]
    ways = ("", " subgroups") if "subgroups" in features_of_adapter(page) else ("",)
    assert set(tuned["candidates_ns"]) == {f"{size}{way}" for size in (32, 64, 128, 256) for way in ways}
    assert all(len(times) == 5 and min(times) > 0 for times in tuned["candidates_ns"].values())
    assert f"{tuned['threads']}{' subgroups' if tuned['subgroups'] else ''}" in tuned["candidates_ns"]
    hurried = ask(0)
    assert hurried["cut_short"]
    assert (hurried["threads"], hurried["subgroups"]) == (64, False)


def test_other_classes_have_no_front_end():
    """A class without audio is a mistake of the caller's, and a setting that the page does not have is refused with its name."""
    with pytest.raises(UserError, match="There is no audio front end for bert"):
        audio_spec("bert", None)
    with pytest.raises(UserError, match="not repeat and"):
        audio_spec("clap", config_of("clap"), {"padding": "repeat"})
