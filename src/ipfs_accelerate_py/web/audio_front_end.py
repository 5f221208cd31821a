"""Which audio front end the page needs for a model: the settings of transformers' feature extractors as an AudioSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .protocol import AudioSpec

# Of these Python can leave the features to the page, a row for each recording. wav2vec2's are the recording itself at mean 0 and variance
# 1 before it is cut into rows that overlap: nothing that a GPU would shorten.
IN_PAGE = ("whisper", "clap")


def audio_spec(model_class: str, config: Any, settings: Mapping[str, Any] | None = None) -> AudioSpec:
    """The front end of ``whisper``, ``wav2vec2`` or ``clap`` with this transformers configuration; UserError for another class.

    ``settings`` are those of a model's own preprocessor_config.json, by their names there; what is left out is the published one.
    """
    makers = {"whisper": whisper, "wav2vec2": wav2vec2, "clap": clap}
    if model_class not in makers:
        raise UserError(f"There is no audio front end for {model_class}: {', '.join(makers)} have one.")
    return makers[model_class](config, settings or {})


def whisper(config: Any, settings: Mapping[str, Any]) -> AudioSpec:
    """WhisperFeatureExtractor; a recording longer than the model's 30 s becomes several rows."""
    from ..models.whisper import HOP_LENGTH, SAMPLE_RATE, input_samples

    samples = input_samples(config)
    return AudioSpec(
        input="input_features",
        kind="whisper",
        rate=SAMPLE_RATE,
        samples=samples,
        row_step=samples,
        window=settings.get("n_fft", 400),
        hop=settings.get("hop_length", HOP_LENGTH),
        mels=config.num_mel_bins,
    )


def wav2vec2(config: Any, settings: Mapping[str, Any]) -> AudioSpec:
    """Wav2Vec2FeatureExtractor and rows that overlap as those of models/wav2vec2.py do."""
    from ..models import wav2vec2 as model

    samples = model.input_samples(config)
    return AudioSpec(
        input="input_values",
        kind="waveform",
        rate=settings.get("sampling_rate", model.SAMPLE_RATE),
        samples=samples,
        row_step=model.row_step(config),
        standardise=settings.get("do_normalize", True),
    )


def clap(config: Any, settings: Mapping[str, Any]) -> AudioSpec:
    """ClapFeatureExtractor: without fusion the beginning of a longer recording (``rand_trunc`` of transformers takes a random stretch),
    with fusion a shrunk spectrogram of all of it and three crops."""
    from ..models.clap import front_end

    chosen = front_end(config.audio_config) | dict(settings)
    if chosen["padding"] != "repeatpad" or chosen["truncation"] not in ("rand_trunc", "fusion"):
        raise UserError(
            f"The page's CLAP front end pads by repeatpad and truncates by rand_trunc or fusion, not {chosen['padding']} and "
            f"{chosen['truncation']}: let Python make the features."
        )
    fusion = chosen["truncation"] == "fusion"
    return AudioSpec(
        input="input_features",
        kind="decibels",
        rate=chosen["sampling_rate"],
        samples=chosen["max_length_s"] * chosen["sampling_rate"],
        row_step=0,
        padding="repeat",
        fusion=fusion,
        window=chosen["fft_window_size"],
        hop=chosen["hop_length"],
        mels=chosen["feature_size"],
        mel_scale="htk" if fusion else "slaney",
        minimum_hz=float(chosen["frequency_min"]),
        maximum_hz=float(chosen["frequency_max"]),
    )
