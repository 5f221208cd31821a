"""Whisper speech recognition (Radford et al., 2022, https://arxiv.org/abs/2212.04356).

The encoder graph also computes the keys and values of the decoder's cross-attention, once; each step of the decoder reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import ExportGraph, ModelClass, Size
from .prepared import Generation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples between frames of the spectrogram
# <|startoftranscript|>, <|en|>, <|transcribe|>, <|notimestamps|> of the multilingual vocabulary
MULTILINGUAL_VOCABULARY = 51865
MULTILINGUAL_START = (50258, 50259, 50359, 50363)
COMMON = {
    "vocab_size": MULTILINGUAL_VOCABULARY,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "activation_function": "gelu",
    "decoder_start_token_id": 50258,
    "bos_token_id": 50257,
    "eos_token_id": 50257,
    "pad_token_id": 50257,
}


def _shape(width: int, layers: int, heads: int) -> dict[str, int]:
    sides = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    return {"d_model": width} | {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()}


class Whisper(ModelClass):
    name = "whisper"
    family = "audio"
    task = "automatic-speech-recognition"
    transformers_model_types = ("whisper",)
    default_new_tokens = 16
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                **COMMON,
                **_shape(64, 2, 4),
                "vocab_size": 1000,
                "max_source_positions": 50,
                "max_target_positions": 64,
                "decoder_start_token_id": 1,
                "bos_token_id": 0,
                "eos_token_id": 0,
                "pad_token_id": 0,
            },
        ),
        "small": Size("openai/whisper-tiny", {**COMMON, **_shape(384, 4, 6)}),
        "base": Size("openai/whisper-base", {**COMMON, **_shape(512, 6, 8)}),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import WhisperConfig

        return WhisperConfig(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import WhisperForConditionalGeneration

        return WhisperForConditionalGeneration(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return int(arguments["max_target_positions"]) - len(_start(arguments["vocab_size"], 0)) + 1

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``input_features`` float32 [batch, mel_bins, 2 * source_positions]: the log-mel spectrogram of a seeded waveform.

        The waveform (30 s for the published sizes) is a voice-like harmonic tone whose pitch drifts, in syllables, with noise.
        """
        from transformers import WhisperFeatureExtractor

        seconds = 2 * config.max_source_positions * HOP_LENGTH / SAMPLE_RATE
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        generator = np.random.default_rng(seed)
        waves = []
        for _ in range(batch_size):
            pitch = generator.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * generator.uniform(0.2, 0.8) * time))  # Hz
            phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
            voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 9))
            syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2, 5) * time), 0, None)
            waves.append(0.2 * voice * syllables + generator.normal(0, 0.005, time.shape))
        extractor = WhisperFeatureExtractor(
            feature_size=config.num_mel_bins, sampling_rate=SAMPLE_RATE, hop_length=HOP_LENGTH, chunk_length=seconds
        )
        features = extractor(waves, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
        return {"input_features": np.asarray(features, dtype=np.float32)}

    def generation(self, config: PretrainedConfig) -> Generation:
        return Generation(
            layers=config.decoder_layers,
            key_value_heads=config.decoder_attention_heads,
            head_size=config.d_model // config.decoder_attention_heads,
            vocabulary=config.vocab_size,
            cache_dtype="float32",
            start_token_ids=_start(config.vocab_size, config.decoder_start_token_id),
        )

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward, cache_names, decoder_graph

        generation = self.generation(model.config)
        cross = cache_names(generation.layers, "cross")
        features = inputs["input_features"]
        encoder = ExportGraph(
            Forward(model, encode), {"input_features": features}, tuple(cross), {"input_features": {0: "batch"}}
        )
        batch = features.shape[0]
        shape = (batch, generation.key_value_heads, model.config.max_source_positions, generation.head_size)
        generator = np.random.default_rng(0)
        keys_values = {name: generator.standard_normal(shape, dtype=np.float32) for name in cross}
        assert generation.start_token_ids is not None
        prompt = np.tile(np.array(generation.start_token_ids, dtype=np.int64), (batch, 1))
        cache = prompt.shape[1] + (new_tokens or self.default_new_tokens)
        return {"encoder": encoder, "decoder": decoder_graph(model, decode, generation, prompt, cache, keys_values)}


def _start(vocabulary: int, start_token: int) -> tuple[int, ...]:
    return MULTILINGUAL_START if vocabulary == MULTILINGUAL_VOCABULARY else (start_token,)


def encode(model: Any, input_features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-attention keys and values of every decoder layer, [batch, heads, source_positions, head_size]."""
    hidden = model.model.encoder(input_features).last_hidden_state
    attentions = [layer.encoder_attn for layer in model.model.decoder.layers]
    return tuple(
        _heads(attention, linear(hidden)) for attention in attentions for linear in (attention.k_proj, attention.v_proj)
    )


def decode(model: Any, input_ids: torch.Tensor, positions: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [batch, vocabulary] of the last position, then the new keys and values. ``states`` is past, then cross."""
    from torch.nn.functional import softmax

    from .modules import StaticCache

    decoder = model.model.decoder
    past, cross = states[: 2 * len(decoder.layers)], states[2 * len(decoder.layers) :]
    cache = StaticCache(past, positions)
    hidden = decoder.embed_tokens(input_ids) + decoder.embed_positions.weight.index_select(0, positions)
    for index, layer in enumerate(decoder.layers):
        normed = layer.self_attn_layer_norm(hidden)
        hidden = hidden + layer.self_attn(normed, past_key_values=cache, attention_mask=cache.bias)[0]
        attention, (key, value) = layer.encoder_attn, cross[2 * index : 2 * index + 2]
        query = _heads(attention, attention.q_proj(layer.encoder_attn_layer_norm(hidden)) * attention.scaling)
        context = softmax(query @ key.transpose(2, 3), dim=-1) @ value
        hidden = hidden + attention.out_proj(context.transpose(1, 2).flatten(2))
        normed = layer.final_layer_norm(hidden)
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(normed)))
    last = decoder.layer_norm(hidden[:, -1:])
    return model.proj_out(last)[:, 0], *cache.present


def _heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """[batch, sequence, heads * head_size] to [batch, heads, sequence, head_size]."""
    return projected.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)
