"""Whisper speech recognition (Radford et al., 2022, https://arxiv.org/abs/2212.04356).

The encoder graph also computes the keys and values of the decoder's cross-attention, once; each step of the decoder reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .prepared import Generation
from .processing.audio import audio_batch, chunk_notes, chunks, example_labels, example_waves, recorded, waves_of
from .processing.processor import Preprocessed, Processor, check_raw

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples between frames of the spectrogram
LABELS = 100  # tokens of the training example, about what is said in 30 s
MULTILINGUAL_VOCABULARY = 51865
# By vocabulary: <|startoftranscript|>, <|en|>, <|transcribe|>, <|notimestamps|>; English-only models have neither of the middle two.
PUBLISHED_START = {
    51864: (50257, 50362),  # whisper-tiny.en and its like
    MULTILINGUAL_VOCABULARY: (50258, 50259, 50359, 50363),
    51866: (50258, 50259, 50360, 50364),  # whisper-large-v3
}
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
    raw_inputs = ("audio",)
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
        """``input_features`` float32 [batch, mel_bins, 2 * source_positions]: the log-mel spectrogram of seeded voice-like tones, 30 s
        for the published sizes."""
        waves = example_waves(batch_size, input_samples(config) / SAMPLE_RATE, SAMPLE_RATE, seed)
        return {"input_features": log_mel(config, waves)}

    def preprocess(self, config: PretrainedConfig, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """Recordings of any length; one longer than the model's 30 s becomes several rows of the batch. ``facts["chunks"]`` says how
        many each has."""
        recordings = check_raw(audio_batch(raw), self.raw_inputs, self.name)["audio"]
        waves, notes = waves_of(recordings, SAMPLE_RATE)
        length = input_samples(config)
        rows = [[wave[start : start + length] for start in range(0, len(wave), length)] for wave in waves]
        notes += chunk_notes(waves, length, SAMPLE_RATE)
        heard = [row for parts in rows for row in parts]
        padded = [chunks(row, length)[0] for row in heard]
        arrays = recorded(heard) if processor.recordings else {"input_features": log_mel(config, padded)}
        return Preprocessed(arrays, notes, {"chunks": [len(parts) for parts in rows]})

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``transcription`` and ``token_ids`` of each recording, those of its chunks joined, each up to its end token; ``complete``
        says whether all its chunks came to one.

        Tokens are the likeliest of all: transformers' ``generate`` also forbids those of a generation_config.json's ``suppress_tokens``
        and ``begin_suppress_tokens`` (brackets, notes, an empty answer), so its text can differ.
        """
        from .processing.text import generated_text

        rows = generated_text(processor.tokenizer, outputs["token_ids"], processor.end_tokens(config.eos_token_id))
        texts, ids, complete = iter(rows["text"]), iter(rows["token_ids"]), iter(rows["complete"])
        counts = preprocessed.facts["chunks"]
        return {
            "transcription": [" ".join(next(texts).strip() for _ in range(count)).strip() for count in counts],
            "token_ids": [[token for _ in range(count) for token in next(ids)] for count in counts],
            "complete": [all([next(complete) for _ in range(count)]) for count in counts],
        }

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy, in nats, of LABELS tokens given those before them and the spectrogram."""
        features = inputs["input_features"]
        count = min(LABELS, model.config.max_target_positions)
        labels = example_labels(features, count, 0, model.config.vocab_size)
        return model(features, labels=labels, use_cache=False).loss

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


def input_samples(config: Any) -> int:
    """Samples of the encoder's fixed input, 30 s for the published sizes: the encoder halves the number of frames."""
    return int(2 * config.max_source_positions * HOP_LENGTH)


def log_mel(config: Any, waves: list[np.ndarray]) -> np.ndarray:
    """Float32 [batch, mel_bins, 2 * source_positions] by WhisperFeatureExtractor, which pads and cuts to the fixed length."""
    from transformers import WhisperFeatureExtractor

    seconds = input_samples(config) / SAMPLE_RATE
    extractor = WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, sampling_rate=SAMPLE_RATE, hop_length=HOP_LENGTH, chunk_length=seconds
    )
    features = extractor(waves, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
    return np.asarray(features, dtype=np.float32)


def _start(vocabulary: int, start_token: int) -> tuple[int, ...]:
    return PUBLISHED_START.get(vocabulary, (start_token,))


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
