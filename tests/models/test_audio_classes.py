"""wav2vec2, clap and whisper: their modules against transformers' forward, their front ends against its feature extractors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.nn.functional import interpolate
from transformers import ClapFeatureExtractor, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
from transformers.models.clap.modeling_clap import window_partition

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.clap import AUDIO, FRONT_END, Clap
from ipfs_accelerate_py.models.htsat import bicubic, window_order
from ipfs_accelerate_py.models.processing.audio import example_labels, example_waves
from ipfs_accelerate_py.models.processing.processor import Preprocessed, Processor
from ipfs_accelerate_py.models.synthetic import synthetic_model
from ipfs_accelerate_py.models.wav2vec2 import ALPHABET, Wav2Vec2, frame_count, input_samples
from ipfs_accelerate_py.models.whisper import Whisper

CLASSES = (Wav2Vec2(), Clap(), Whisper())
NONE = Processor(None, 1000)


def speech(seconds: float, rate: int, seed: int = 0) -> tuple[np.ndarray, int]:
    return example_waves(1, seconds, rate, seed)[0].astype(np.float32), rate


def config_of(model_class: Any, size: str = "tiny") -> Any:
    return model_class.config(model_class.sizes[size].config)


def forward(model_class: Any, model: Any, inputs: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        outputs = model_class.graphs(model, inputs, None)["model"].module(*map(torch.from_numpy, inputs.values()))
    return outputs if isinstance(outputs, tuple) else (outputs,)


def relative_error(values: Any, reference: Any) -> float:
    return float(np.abs(np.asarray(values) - np.asarray(reference)).max() / np.abs(np.asarray(reference)).max())


# --- wav2vec2 ---


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_conv_pos_embeddings": 15}, {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}],
    ids=["as published", "odd positional kernel", "layer norms, as the large models"],
)
def test_wav2vec2_is_transformers_forward(changes: dict[str, Any]) -> None:
    """Logits, with the group norm as a layer norm and the weight norm folded; the model itself is left as it was."""
    kind = Wav2Vec2()
    model: Any = synthetic_model(kind, {**kind.sizes["tiny"].config, **changes}, 0)
    inputs = kind.inputs(model.config, 2, None, 0)
    count = sum(parameter.numel() for parameter in model.parameters())
    (logits,) = forward(kind, model, inputs)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs["input_values"])).logits
    assert relative_error(logits, expected) < 1e-5
    assert logits.shape[1] == frame_count(model.config, inputs["input_values"].shape[1])


def test_wav2vec2_front_end_is_the_feature_extractors() -> None:
    """Normalised over what was said, then padded with zeros to the fixed length, with notes."""
    config = config_of(Wav2Vec2(), "base")
    recording = speech(3.2, 16_000)
    found = Wav2Vec2().preprocess(config, {"audio": recording}, NONE)
    # Without the mask the extractor would count the padding in mean and variance, which the training of the model did not.
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    expected = extractor([recording[0]], sampling_rate=16_000, padding="max_length", max_length=160_000)["input_values"]
    assert relative_error(found.arrays["input_values"], expected) < 1e-6
    assert found.notes == ("Audio shorter than 10 s was padded with silence.",)


@pytest.mark.parametrize("samples", [1, 399, 720, 160_000, 160_001, 200_000, 266_560, 266_561, 800_000])
def test_wav2vec2_chunks_keep_each_frame_once(samples: int) -> None:
    """The frames that count, put in the recording's time, are 0, 1, 2, ... to the last that its samples fill."""
    config = config_of(Wav2Vec2(), "base")
    wave = np.random.default_rng(0).standard_normal(samples, dtype=np.float32)
    found = Wav2Vec2().preprocess(config, {"audio": [(wave, 16_000)]}, NONE)
    kept, rows = found.facts["kept"], found.arrays["input_values"]
    assert rows.shape == (len(kept), 160_000)
    step = 499 - 2 * 83
    frames = [index * step + frame for index, (_, first, end) in enumerate(kept) for frame in range(first, end)]
    assert frames == list(range(max(1, frame_count(config, samples))))
    for index, row in enumerate(rows[:-1]):
        np.testing.assert_array_equal(row[step * 320 :], rows[index + 1][: len(row) - step * 320], err_msg="chunks overlap")


def test_wav2vec2_reads_as_the_published_tokenizer(tmp_path: Path) -> None:
    """Greedy decoding of random frames equals Wav2Vec2CTCTokenizer's, with the default alphabet and with a folder's own."""
    (tmp_path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(ALPHABET)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    config = config_of(Wav2Vec2())
    generator = np.random.default_rng(0)
    logits = np.repeat(generator.standard_normal((2, 40, 32), dtype=np.float32), 2, axis=1)
    logits[:, :, 1:4] = -9  # special tokens, which the tokenizer would spell out
    logits[:, ::3, 0] = 9
    logits[:, ::7, 4] = 10
    preprocessed = Preprocessed({}, (), {"kept": [(0, 0, 80), (1, 0, 80)]})
    expected = tokenizer.batch_decode(logits.argmax(-1))
    assert all(len(text) > 10 for text in expected)
    for processor in (NONE, Processor(tmp_path)):
        found = Wav2Vec2().postprocess(config, {"logits": logits}, preprocessed, processor)["transcription"]
        assert [text.split() for text in found] == [text.split() for text in expected]


def test_wav2vec2_spells_no_special_token(tmp_path: Path) -> None:
    """However the folder's vocabulary writes them."""
    (tmp_path / "vocab.json").write_text(json.dumps({"[PAD]": 0, "|": 4, "a": 5, "[UNK]": 6, "<s>": 7, "<": 8}))
    logits = np.eye(32, dtype=np.float32)[[[5, 6, 4, 7, 8]]]
    preprocessed = Preprocessed({}, (), {"kept": [(0, 0, 5)]})
    found = Wav2Vec2().postprocess(config_of(Wav2Vec2()), {"logits": logits}, preprocessed, Processor(tmp_path))
    assert found["transcription"] == ["a <"]


def test_wav2vec2_says_that_it_has_no_attention_mask(tmp_path: Path) -> None:
    """Where the folder's model was trained with one."""
    (tmp_path / "preprocessor_config.json").write_text('{"return_attention_mask": true}')
    found = Wav2Vec2().preprocess(config_of(Wav2Vec2()), {"audio": speech(0.1, 16_000)}, Processor(tmp_path))
    assert any("trained with an attention mask" in note for note in found.notes)


@pytest.mark.parametrize(
    ("kind", "settings", "part"),
    [
        (Wav2Vec2(), {"sampling_rate": 0}, "setting sampling_rate is a whole number from 1,000"),
        (Wav2Vec2(), {"sampling_rate": "x"}, "not 'x'"),
        (Clap(), {"hop_length": 0}, "setting hop_length is a whole number from 1 to"),
        (Clap(), {"frequency_max": 20}, "frequency_min of 50 Hz, not below the frequency_max of 20 Hz"),
        (Clap(), {"truncation": "fusion"}, "truncation is 'fusion', and only 'rand_trunc' is supported"),
        (Clap(), {"feature_size": 32}, "make 201 frames of 32 mel bins, and the model takes 201 of 16"),
        (Clap(), {"max_length_s": 5}, "make 501 frames of 16 mel bins, and the model takes 201 of 16"),
    ],
)
def test_audio_settings_that_cannot_be_used_are_refused(kind: Any, settings: Any, part: str, tmp_path: Path) -> None:
    """Numbers that are none, and what the graph has fixed."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    raw = {"audio": speech(0.1, 48_000), "text": "rain"}
    with pytest.raises(UserError, match=part):
        kind.preprocess(config_of(kind), {name: raw[name] for name in kind.raw_inputs}, Processor(tmp_path, 1000))


def test_wav2vec2_takes_the_letters_of_the_folder(tmp_path: Path) -> None:
    """Of vocab.json, or of tokenizer.json; one with too few tokens, a broken one and a model without any are refused."""
    config, kind = config_of(Wav2Vec2()), Wav2Vec2()
    logits = np.eye(32, dtype=np.float32)[[[5, 5, 0, 6, 4, 6]]]
    preprocessed = Preprocessed({}, (), {"kept": [(0, 0, 6)]})

    def read(processor: Processor) -> list[str]:
        return kind.postprocess(config, {"logits": logits}, preprocessed, processor)["transcription"]

    assert read(NONE) == ["ET T"]
    vocabulary = {"<pad>": 0, "|": 4, "ж": 5, "и": 6}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    assert read(Processor(tmp_path)) == ["жи и"]
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 4, "ж": 5}))
    with pytest.raises(UserError, match="Unknown token 6"):
        read(Processor(tmp_path))
    (tmp_path / "vocab.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="is not a vocabulary"):
        read(Processor(tmp_path))
    config.vocab_size = 40
    with pytest.raises(UserError, match=r"40 tokens.*vocab\.json"):
        read(NONE)


# --- clap ---


@pytest.mark.parametrize("shape", ["tiny", "published"])
def test_clap_is_transformers_forward(shape: str) -> None:
    """Embeddings of text and audio, with batch norms that do something and a padded text; at the published audio shape too."""
    kind = Clap()
    arguments = dict(kind.sizes["tiny"].config)
    if shape == "published":
        arguments["audio_config"] = {**AUDIO, "depths": [2, 2, 2, 2]}
    model: Any = synthetic_model(kind, arguments, 0)
    norm, generator = model.audio_model.audio_encoder.batch_norm, torch.Generator().manual_seed(0)
    norm.running_mean.uniform_(-60, -20, generator=generator)
    norm.running_var.uniform_(50, 400, generator=generator)
    inputs = kind.inputs(model.config, 1 if shape == "published" else 2, 12, 0)
    assert shape == "published" or (inputs["attention_mask"] == 0).any()
    text, audio = forward(kind, model, inputs)
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    assert relative_error(text, expected.text_embeds) < 1e-5
    assert relative_error(audio, expected.audio_embeds) < 1e-5


def test_window_order_is_roll_and_partition() -> None:
    """One Gather instead of a roll and transformers' window_partition."""
    grid = torch.arange(256).reshape(1, 16, 16, 1)
    expected = window_partition(torch.roll(grid, (-2, -2), (1, 2)), 4).flatten()
    np.testing.assert_array_equal(window_order(16, 4, 2), expected)


def test_bicubic_matrix_is_torchs_interpolation() -> None:
    """On noise, to float32's rounding."""
    noise = torch.randn(1, 1, 201, 16, generator=torch.Generator().manual_seed(0))
    expected = interpolate(noise, (256, 16), mode="bicubic", align_corners=True)
    torch.testing.assert_close(bicubic(201, 256) @ noise, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("seconds", "note"), [(3.3, "repeated as often as it fits"), (10, None), (12, "only the first 10 s")])
def test_clap_front_end_is_the_feature_extractors(seconds: float, note: str | None) -> None:
    """A short recording is repeated, a long one cut at its start, which the published processor cuts anywhere."""
    recording = speech(seconds, 48_000)
    found = Clap().preprocess(config_of(Clap(), "base"), {"text": "a voice", "audio": recording}, NONE)
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="rand_trunc", padding="repeatpad")
    expected = extractor(recording[0][:480_000], sampling_rate=48_000, return_tensors="np")["input_features"]
    assert found.arrays["input_features"].shape == (1, 1, 1001, 64)
    assert relative_error(found.arrays["input_features"], expected) < 1e-4
    notes = [text for text in found.notes if "Audio" in text or "audio" in text]
    assert [note in text for text in notes] == ([True] if note else [])


def test_clap_takes_the_settings_of_the_folder(tmp_path: Path) -> None:
    """preprocessor_config.json changes the front end."""
    recording, config = speech(2, 48_000), config_of(Clap())
    published = Clap().preprocess(config, {"text": "a voice", "audio": recording}, NONE).arrays["input_features"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**FRONT_END, "frequency_max": 8_000}))
    changed = Clap().preprocess(config, {"text": "a voice", "audio": recording}, Processor(tmp_path, 1000))
    assert np.abs(changed.arrays["input_features"] - published).max() > 1


def test_clap_classifies_each_recording_among_all_texts(tmp_path: Path) -> None:
    """Three texts and two recordings: embeddings of each, labels best first, scores by the model's own scale."""
    kind, config = Clap(), config_of(Clap())
    raw = {"text": ["rain", "a dog", "a bell"], "audio": [speech(2, 48_000), speech(2, 48_000, 1)]}
    found = kind.preprocess(config, raw, NONE)
    assert {name: len(array) for name, array in found.arrays.items()} == dict.fromkeys(found.arrays, 3)
    text = np.eye(3, 4, dtype=np.float32)
    audio = np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0], [0.6, 0.8, 0, 0]], dtype=np.float32)
    save_file({"logit_scale_a": np.array(np.log(2.0), dtype=np.float32)}, tmp_path / "model.safetensors")
    result = kind.postprocess(config, {"text_embeds": text, "audio_embeds": audio}, found, Processor(tmp_path))
    assert {name: len(array) for name, array in result["embeddings"].items()} == {"text": 3, "audio": 2}
    first, second = result["classifications"]
    assert [entry["label"] for entry in first] == ["a dog", "rain", "a bell"]
    expected = np.exp([1.6, 1.2, 0]) / np.exp([1.6, 1.2, 0]).sum()
    np.testing.assert_allclose([entry["score"] for entry in first], expected, rtol=1e-5)
    assert second[0]["label"] == "a bell"
    untrained = kind.postprocess(config, {"text_embeds": text, "audio_embeds": audio}, found, NONE)["classifications"]
    assert untrained[0][0]["score"] > first[0]["score"]
    single = Preprocessed({}, (), {"texts": ["rain"], "recordings": 2})
    assert "classifications" not in kind.postprocess(config, {"text_embeds": text, "audio_embeds": audio}, single, NONE)


def test_clap_refuses_text_beyond_its_positions() -> None:
    """82 positions, two of them the padding's: 80 tokens; with leave to cut, a note."""
    config, kind = config_of(Clap()), Clap()
    assert kind.longest(kind.sizes["tiny"].config) == 80
    assert kind.longest(kind.sizes["base"].config) == 512
    raw = {"text": "rain " * 40, "audio": speech(2, 48_000)}
    with pytest.raises(UserError, match=r"has \d+ tokens, and the model takes at most 80"):
        kind.preprocess(config, raw, NONE)
    found = kind.preprocess(config, raw, Processor(None, 1000, truncate=True))
    assert found.arrays["input_ids"].shape == (1, 80)
    assert any("was cut" in note for note in found.notes)


# --- whisper ---


def test_whisper_front_end_is_the_feature_extractors() -> None:
    """30 s of log-mel frames from a short recording at another rate, and from one of 40 s two rows, with notes."""
    config, extractor = config_of(Whisper(), "small"), WhisperFeatureExtractor()
    recording, _ = speech(40, 16_000)
    found = Whisper().preprocess(config, {"audio": [(recording[:48_000], 16_000), (recording, 16_000)]}, NONE)
    parts = [recording[:48_000], recording[:480_000], recording[480_000:]]
    expected = extractor(parts, sampling_rate=16_000, return_tensors="np")["input_features"]
    assert found.arrays["input_features"].shape == (3, 80, 3000)
    assert relative_error(found.arrays["input_features"], expected) < 1e-4
    assert found.facts == {"chunks": [1, 2]}
    assert [note.split(" was ")[0] for note in found.notes] == ["Audio shorter than 30 s", "Audio longer than 30 s"]


def test_whisper_joins_the_text_of_chunks() -> None:
    """Each chunk up to its end token; one text and one row of ids a recording."""
    config, tokenizer = config_of(Whisper()), NONE.tokenizer
    words = [list(tokenizer.encode([text], max_length=None).ids[0]) for text in ("rain", "and", "hail")]
    rows = np.array([[*ids, *[config.eos_token_id] * (8 - len(ids))] for ids in words])
    rows[2, len(words[2]) :] = words[2][0]  # no end token in the last
    preprocessed = Preprocessed({}, (), {"chunks": [2, 1]})
    result = Whisper().postprocess(config, {"token_ids": rows}, preprocessed, NONE)
    assert result["transcription"] == ["rain and", "hailhhhh"]
    end = config.eos_token_id
    assert result["token_ids"] == [[*words[0], end, *words[1], end], rows[2].tolist()]
    assert result["complete"] == [True, False]


# --- all three ---


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_raw_inputs_become_the_models_arrays(kind: Any) -> None:
    """Names, types and all but the first dimensions (and a text's length) are those of the example inputs."""
    config = config_of(kind)
    raw = {"audio": [speech(2, 44_100), speech(0.1, 8_000)], "text": ["rain", "a bell"]}
    found = kind.preprocess(config, {name: raw[name] for name in kind.raw_inputs}, NONE)
    example = kind.inputs(config, 2, found.arrays["input_ids"].shape[1] if kind.name == "clap" else None, 0)
    assert {name: (array.dtype, array.shape[1:]) for name, array in found.arrays.items()} == {
        name: (array.dtype, array.shape[1:]) for name, array in example.items()
    }
    assert sum("resampled" in note for note in found.notes) == 2


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_bad_input_is_refused_in_one_sentence(kind: Any) -> None:
    """NaN, an empty batch, no audio at all, an unknown input."""
    config, text = config_of(kind), {"text": "rain"} if "text" in kind.raw_inputs else {}
    for raw, part in (
        ({"audio": (np.full(100, np.nan), 16_000)}, "NaN"),
        ({"audio": []}, "The batch of audio is empty"),
        ({}, "audio is missing"),
        ({"audio": speech(1, 16_000), "audoi": 1}, "audoi"),
        ({"audio": np.zeros(100)}, "sample rate"),
    ):
        with pytest.raises(UserError) as refused:
            kind.preprocess(config, raw | text, NONE)
        assert part in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_training_lowers_the_loss(kind: Any) -> None:
    """A few steps on the example inputs; the first loss is the same twice, so the labels follow from the inputs."""
    model: Any = synthetic_model(kind, kind.sizes["tiny"].config, 0)
    inputs = {name: torch.from_numpy(array) for name, array in kind.inputs(model.config, 2, 12, 0).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = kind.loss(model, inputs)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    again = kind.loss(synthetic_model(kind, kind.sizes["tiny"].config, 0), inputs)
    assert float(again.detach()) == losses[0]
    assert 0 < losses[-1] < 0.95 * losses[0]


def test_example_labels_follow_from_the_signal() -> None:
    """In range, different for different signals, several kinds of them."""
    signal = torch.from_numpy(np.stack(example_waves(2, 1, 16_000, 0)))
    labels = example_labels(signal, 50, 4, 32)
    assert labels.shape == (2, 50)
    assert 4 <= int(labels.min()) <= int(labels.max()) < 32
    assert len(set(labels[0].tolist())) > 10
    assert (labels[0] != labels[1]).any()
    assert torch.equal(labels, example_labels(signal, 50, 4, 32))


def test_a_configuration_that_the_graphs_do_not_cover_is_refused() -> None:
    """Feature fusion and convolutional adapters."""
    fused = {**Clap.sizes["tiny"].config, "audio_config": {**AUDIO, "enable_fusion": True}}
    with pytest.raises(UserError, match="unfused"):
        Clap().build(Clap().config(fused))
    with pytest.raises(UserError, match="add_adapter"):
        Wav2Vec2().build(Wav2Vec2().config({**Wav2Vec2.sizes["tiny"].config, "add_adapter": True}))


def test_a_saved_configuration_keeps_its_input_length(tmp_path: Path) -> None:
    """So a folder that was saved from tiny is run with tiny's inputs; a published one has the published length."""
    from transformers import AutoConfig

    config_of(Wav2Vec2()).save_pretrained(tmp_path / "wav2vec2")
    assert input_samples(AutoConfig.from_pretrained(tmp_path / "wav2vec2")) == 3_200
    assert input_samples(config_of(Wav2Vec2(), "base")) == 160_000
    config_of(Clap()).save_pretrained(tmp_path / "clap")
    assert AutoConfig.from_pretrained(tmp_path / "clap").audio_config.input_seconds == 2
