"""CLAP: recordings and text as embeddings of one space (Wu et al., 2022, https://arxiv.org/abs/2211.06687), without feature fusion.

Text i and recording i of a batch are embedded independently of each other and of the rest, so a batch may hold unrelated ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.audio import RATES, audio_batch, example_waves, recorded, waves_of
from .processing.image import ranked
from .processing.processor import Preprocessed, Processor, check_raw, learned_scale, whole_number
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

COUNTS = range(1, 1_000_001)  # of samples, seconds or mel bins in a setting
INPUT_SECONDS = 10  # where the audio configuration has no input_seconds of its own
# preprocessor_config.json of laion/clap-htsat-unfused: a log-mel spectrogram in decibels, a frame every 10 ms
FRONT_END = {
    "sampling_rate": 48_000,
    "hop_length": 480,
    "fft_window_size": 1024,
    "frequency_min": 50,
    "frequency_max": 14_000,
    "top_db": None,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}
TEXT = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
AUDIO = {
    "num_mel_bins": 64,
    "spec_size": 256,
    "window_size": 8,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "patch_embeds_hidden_size": 96,
    "depths": [2, 2, 6, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 768,
    "hidden_act": "gelu",
    "enable_fusion": False,
    "layer_norm_eps": 1e-5,
}


class Clap(ModelClass):
    name = "clap"
    family = "multimodal"
    task = "audio-text-embedding"
    least_training_batch = 2
    transformers_model_types = ("clap",)
    default_sequence_length = 77  # what the published model was trained with
    raw_inputs = ("text", "audio")
    unused_weights = ("logit_scale_a", "logit_scale_t")
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "text_config": {
                    **TEXT,
                    "vocab_size": 1000,
                    "hidden_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "intermediate_size": 128,
                    "max_position_embeddings": 82,
                },
                "audio_config": {
                    **AUDIO,
                    "input_seconds": 2,
                    "num_mel_bins": 16,
                    "spec_size": 64,
                    "window_size": 4,
                    "patch_embeds_hidden_size": 16,
                    "depths": [2, 2],
                    "num_attention_heads": [2, 4],
                    "hidden_size": 32,
                },
                "projection_dim": 32,
            },
        ),
        "base": Size("laion/clap-htsat-unfused", {"text_config": TEXT, "audio_config": AUDIO, "projection_dim": 512}),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import ClapConfig

        return ClapConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import ClapModel

        if config.audio_config.enable_fusion:
            raise UserError("CLAP models with feature fusion (clap-htsat-fused) are not supported; take clap-htsat-unfused.")
        return ClapModel(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return most_tokens({**TEXT, **(arguments.get("text_config") or {})})

    def inputs(self, config: Any, batch_size: int, sequence_length: int | None, seed: int) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask``, int64 [batch, sequence], the mask 0 on padding at the end of a row; ``input_features``
        float32 [batch, 1, frames, mel_bins] of voice-like tones."""
        text = copy.copy(config.text_config)
        text.name_or_path = config.name_or_path
        ids, lengths = token_ids(text, batch_size, sequence_length or self.default_sequence_length, seed, padded=True)
        mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        ids[:, 0] = text.bos_token_id
        ids[mask & (ids == text.pad_token_id)] = text.eos_token_id  # no padding among random ids
        ids[np.arange(batch_size), lengths - 1] = text.eos_token_id
        settings = front_end(config.audio_config)
        waves = example_waves(batch_size, settings["max_length_s"], settings["sampling_rate"], seed)
        return {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            "input_features": log_mel([wave.astype(np.float32) for wave in waves], settings),
        }

    def graphs(self, model: Any, inputs: Mapping[str, np.ndarray], new_tokens: int | None) -> dict[str, ExportGraph]:
        from torch.nn import ModuleDict

        from .htsat import AudioTower
        from .modules import Forward

        parts = ModuleDict(
            {
                "text": model.text_model,
                "text_projection": model.text_projection,
                "audio": AudioTower(model.audio_model.audio_encoder, inputs["input_features"].shape[2]),
                "audio_projection": model.audio_projection,
            }
        )
        dynamic = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
        dynamic["input_features"] = {0: "batch"}
        return {"model": ExportGraph(Forward(parts, embed), dict(inputs), ("text_embeds", "audio_embeds"), dynamic)}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """Any number of texts and any number of recordings. The shorter list is repeated to fill the batch, and the rest left out
        later. Of a longer recording the first 10 s are taken, where the published processor takes a random stretch."""
        batch = check_raw(audio_batch(raw), self.raw_inputs, self.name, paired=False)
        texts, recordings = batch["text"], batch["audio"]
        text = vars(config.text_config)
        ends = ((text["bos_token_id"],), (text["eos_token_id"],))
        encoded = processor.tokenizer.encode(
            texts, max_length=most_tokens(text), truncate=processor.truncate, pad_id=text["pad_token_id"], ends=ends
        )
        published = front_end(config.audio_config)
        settings = checked(processor.settings(published), published)
        waves, notes = waves_of(recordings, settings["sampling_rate"])
        length = settings["max_length_s"] * settings["sampling_rate"]
        if any(len(wave) > length for wave in waves):
            notes += (
                f"Of audio longer than {settings['max_length_s']} s only the first {settings['max_length_s']} s were taken.",
            )
        if any(len(wave) < length for wave in waves):
            notes += (
                f"Audio shorter than {settings['max_length_s']} s was repeated as often as it fits, then padded with silence.",
            )
        heard = (
            recorded([wave[:length] for wave in waves])
            if processor.recordings
            else {"input_features": log_mel(waves, settings)}
        )
        rows = np.arange(max(len(texts), len(waves)))
        arrays = {
            "input_ids": encoded.ids[rows % len(texts)],
            "attention_mask": encoded.mask[rows % len(texts)],
            **{name: array[rows % len(waves)] for name, array in heard.items()},
        }
        return Preprocessed(arrays, (*encoded.notes, *notes), {"texts": texts, "recordings": len(waves)})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``embeddings`` of each text and each recording, length 1. With several texts also ``classifications``: for each recording
        the texts as labels, best first, scored by the softmax of the scaled cosines."""
        texts = preprocessed.facts["texts"]
        text, audio = outputs["text_embeds"][: len(texts)], outputs["audio_embeds"][: preprocessed.facts["recordings"]]
        result: dict[str, Any] = {"embeddings": {"text": text, "audio": audio}}
        if len(texts) > 1:
            scale = math.exp(learned_scale(processor, "logit_scale_a", math.log(config.logit_scale_init_value)))
            result["classifications"] = [ranked(row, texts) for row in scale * audio @ text.T]
        return result

    def loss(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Contrastive: text i belongs to recording i. 0 for a batch of one."""
        return model(**inputs, return_loss=True).loss


def most_tokens(text_config: Mapping[str, Any]) -> int:
    """RoBERTa's positions start after the padding's."""
    return int(text_config["max_position_embeddings"]) - int(text_config["pad_token_id"]) - 1


def front_end(audio_config: Any) -> dict[str, Any]:
    """The published settings, at this configuration's length and number of mel bins."""
    seconds = getattr(audio_config, "input_seconds", INPUT_SECONDS)
    return {**FRONT_END, "feature_size": audio_config.num_mel_bins, "max_length_s": seconds}


def checked(settings: dict[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; UserError where a number is none, or where they make another number of frames or mel bins than the graph has."""
    allowed = {
        "sampling_rate": RATES,
        "frequency_min": range(RATES[-1]),
        "frequency_max": range(RATES[-1]),
        **dict.fromkeys(("hop_length", "fft_window_size", "feature_size", "max_length_s"), COUNTS),
    }
    settings = settings | {name: whole_number(settings, name, numbers) for name, numbers in allowed.items()}
    for name in ("padding", "truncation"):
        if settings[name] != FRONT_END[name]:
            raise UserError(f"The processing setting {name} is {settings[name]!r}, and only {FRONT_END[name]!r} is supported.")
    if settings["frequency_min"] >= settings["frequency_max"]:
        raise UserError(
            f"The processing settings have a frequency_min of {settings['frequency_min']:,} Hz, not below the frequency_max of "
            f"{settings['frequency_max']:,} Hz: correct the model's preprocessor_config.json."
        )
    made, fixed = (
        (1 + each["max_length_s"] * each["sampling_rate"] // each["hop_length"], each["feature_size"])
        for each in (settings, published)
    )
    if made != fixed:
        raise UserError(
            f"The processing settings make {made[0]} frames of {made[1]} mel bins, and the model takes {fixed[0]} of {fixed[1]}: "
            "correct max_length_s, sampling_rate, hop_length or feature_size in its preprocessor_config.json."
        )
    return settings


def log_mel(waves: list[np.ndarray], settings: Mapping[str, Any]) -> np.ndarray:
    """Float32 [batch, 1, frames, mel_bins] in decibels of the first ``max_length_s`` of each wave, by ClapFeatureExtractor."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(**settings)
    cut = [wave[: extractor.nb_max_samples] for wave in waves]
    features = extractor(cut, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_features"]
    return np.asarray(features, dtype=np.float32)


def embed(
    parts: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, input_features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text and audio embeddings [batch, projection] of length 1."""
    text = parts.text_projection(embed_text(parts.text, input_ids, attention_mask))
    audio = parts.audio_projection(parts.audio(input_features))
    # Not torch's normalize: its guard against zeros is a Clip, which Firefox does not compile at float16, and none is needed.
    return text / text.norm(dim=-1, keepdim=True), audio / audio.norm(dim=-1, keepdim=True)


def embed_text(text: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """RoBERTa's pooled first token [batch, hidden]. Padding is at the end of a row, so position i of every row is i: on padding
    transformers has another position, which no token attends to."""
    from .modules import attended, mask_bias

    embeddings = text.embeddings
    weights = embeddings.position_embeddings.weight
    first = embeddings.padding_idx + 1
    hidden = embeddings.word_embeddings(input_ids) + embeddings.token_type_embeddings.weight[0]
    hidden = embeddings.LayerNorm(hidden + weights[first : first + input_ids.shape[1]])
    bias = mask_bias(attended(attention_mask, hidden.dtype))
    for layer in text.encoder.layer:
        hidden = layer(hidden, bias)
    return text.pooler(hidden)
