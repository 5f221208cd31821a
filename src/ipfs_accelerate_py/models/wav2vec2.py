"""wav2vec 2.0 speech recognition with a CTC head (Baevski et al., 2020, https://arxiv.org/abs/2006.11477).

The input has a fixed length, as WebNN needs: shorter audio is padded with silence, longer audio is cut into overlapping chunks. The
published base models were trained without an attention mask, on audio padded with zeros; so is their input here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.audio import RATES, audio_batch, chunk_notes, chunks, example_labels, example_waves, waves_of
from .processing.processor import Preprocessed, Processor, check_raw, whole_number

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

SAMPLE_RATE = 16_000  # Hz
INPUT_SAMPLES = 160_000  # 10 s, where the configuration has no input_samples of its own
MARGIN = 1 / 6  # of a chunk, at each end that another chunk overlaps: frames near a cut lack what comes after it
FRAMES_PER_LABEL = 3  # of the training example; CTC needs up to two frames a label
# Ids of facebook/wav2vec2-base-960h; | stands between words.
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
BRACKETED = re.compile(r"<.+>|\[.+\]")  # special tokens, as vocabularies write them: <unk>, [UNK], [PAD]
ALPHABET = (*SPECIAL, *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ")
COMMON = {
    "vocab_size": len(ALPHABET),
    "feat_extract_norm": "group",
    "conv_bias": False,
    "do_stable_layer_norm": False,
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BASE = {
    **COMMON,
    "conv_dim": (512,) * 7,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}


class Wav2Vec2(ModelClass):
    name = "wav2vec2"
    family = "audio"
    task = "automatic-speech-recognition"
    transformers_model_types = ("wav2vec2",)
    raw_inputs = ("audio",)
    unused_weights = ("wav2vec2.masked_spec_embed",)  # replaces frames in training alone
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                **COMMON,
                "input_samples": 3_200,
                "conv_dim": (32,) * 7,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 4,
                "mask_time_prob": 0.0,  # SpecAugment's spans are longer than its 9 frames
            },
        ),
        "base": Size("facebook/wav2vec2-base", BASE),  # trained without the head
        "base-960h": Size("facebook/wav2vec2-base-960h", BASE),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import Wav2Vec2Config

        return Wav2Vec2Config(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import Wav2Vec2ForCTC

        if config.add_adapter:
            raise UserError("wav2vec2 models with a convolutional adapter (add_adapter) are not supported.")
        return Wav2Vec2ForCTC(config).eval()

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``input_values`` float32 [batch, samples], each row of mean 0 and variance 1: voice-like tones."""
        waves = example_waves(batch_size, input_samples(config) / SAMPLE_RATE, SAMPLE_RATE, seed)
        return {"input_values": np.stack([normalised(wave.astype(np.float32)) for wave in waves])}

    def graphs(self, model: Any, inputs: Mapping[str, np.ndarray], new_tokens: int | None) -> dict[str, ExportGraph]:
        from torch.nn import ModuleDict

        from .modules import Forward

        encoder = model.wav2vec2.encoder
        parts = ModuleDict(
            {
                "features": model.wav2vec2.feature_extractor,
                "projection": model.wav2vec2.feature_projection,
                "positions": _folded(encoder.pos_conv_embed.conv),
                "activation": encoder.pos_conv_embed.activation,
                "norm": encoder.layer_norm,
                "layers": encoder.layers,
                "head": model.lm_head,
            }
        )
        forward = Forward(parts, partial(recognise, norm_last=model.config.do_stable_layer_norm))
        return {"model": ExportGraph(forward, dict(inputs), ("logits",), {"input_values": {0: "batch"}})}

    def preprocess(self, config: PretrainedConfig, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """Recordings of any length. ``facts["kept"]`` has for each row of the batch its item and the frames of it that count, first
        and past the last: the rest is silence, or near a cut, where the neighbouring chunk has them too."""
        recordings = check_raw(audio_batch(raw), self.raw_inputs, self.name)["audio"]
        settings = processor.settings({"sampling_rate": SAMPLE_RATE, "do_normalize": True})
        rate, length = whole_number(settings, "sampling_rate", RATES), input_samples(config)
        waves, notes = waves_of(recordings, rate)
        if settings.get("return_attention_mask"):
            notes += ("The model was trained with an attention mask, and here it reads the silence that fills the input too.",)
        frames = frame_count(config, length)
        margin, step = int(frames * MARGIN), row_step(config)
        rows, kept = [], []
        for item, wave in enumerate(waves):
            parts = chunks(normalised(wave) if settings["do_normalize"] else wave, length, step)
            for index in range(len(parts)):
                end = frames - margin if index < len(parts) - 1 else max(1, frame_count(config, len(wave) - index * step))
                kept.append((item, margin if index else 0, min(frames, end)))
            rows.append(parts)
        notes += chunk_notes(waves, length, rate, length - step)
        return Preprocessed({"input_values": np.concatenate(rows)}, notes, {"kept": kept})

    def postprocess(
        self, config: PretrainedConfig, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``transcription`` of each recording: the likeliest token of each frame, repetitions and blanks removed."""
        letters, blank = vocabulary(config, processor), config.pad_token_id
        kept = preprocessed.facts["kept"]
        best: list[list[int]] = [[] for _ in range(kept[-1][0] + 1)]
        for logits, (item, first, end) in zip(outputs["logits"], kept, strict=True):
            best[item] += logits[first:end].argmax(-1).tolist()
        return {"transcription": [_read(tokens, letters, blank) for tokens in best]}

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Connectionist temporal classification (Graves et al., 2006, https://doi.org/10.1145/1143844.1143891), in nats a label, as in
        fine-tuning."""
        import torch
        from torch.nn.functional import ctc_loss

        values, config = inputs["input_values"], model.config
        logits = model(values).logits
        frames = logits.shape[1]
        labels = example_labels(values, max(1, frames // FRAMES_PER_LABEL), len(SPECIAL), config.vocab_size)
        frames_each = torch.full((len(values),), frames, device=values.device)
        labels_each = torch.full_like(frames_each, labels.shape[1])
        log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
        return ctc_loss(log_probabilities, labels, frames_each, labels_each, blank=config.pad_token_id)


def input_samples(config: Any) -> int:
    return int(getattr(config, "input_samples", INPUT_SAMPLES))


def row_step(config: Any) -> int:
    """Samples between the starts of a long recording's chunks: whole frames, so that chunks' frames fit together."""
    frames = frame_count(config, input_samples(config))
    return (frames - 2 * int(frames * MARGIN)) * int(np.prod(config.conv_stride))


def frame_count(config: Any, samples: int) -> int:
    """Frames that the convolutions make of that many samples; 0 or less where they are too few for one."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def normalised(wave: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1, as Wav2Vec2FeatureExtractor makes them."""
    return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)


def vocabulary(config: Any, processor: Processor) -> dict[int, str]:
    """Token of each id: of the folder's vocab.json or tokenizer.json, otherwise the published alphabet."""
    folder = processor.folder
    for name in ("vocab.json", "tokenizer.json"):
        path = folder / name if folder else None
        if path is None or not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ids = content if name == "vocab.json" else content["model"]["vocab"]
            return {int(index): str(token) for token, index in ids.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise UserError(f"'{path}' is not a vocabulary of tokens and their ids: {broken}.") from broken
    if config.vocab_size != len(ALPHABET):
        raise UserError(
            f"The model has {config.vocab_size} tokens, and its folder has no vocab.json that says which: put its vocab.json there."
        )
    return dict(enumerate(ALPHABET))


def _read(tokens: list[int], letters: Mapping[int, str], blank: int) -> str:
    ids = [token for index, token in enumerate(tokens) if token != blank and (index == 0 or token != tokens[index - 1])]
    unknown = next((token for token in ids if token not in letters), None)
    if unknown is not None:
        raise UserError(f"Unknown token {unknown}: the model's vocab.json has no such id; is it of another model?")
    text = "".join(letters[token] for token in ids if not BRACKETED.fullmatch(letters[token]))
    return " ".join(text.replace("|", " ").split())


def recognise(parts: Any, input_values: torch.Tensor, norm_last: bool) -> torch.Tensor:
    """Logits [batch, frames, vocabulary] of ``input_values`` [batch, samples]. ``norm_last``: the layers' norm comes after them."""
    hidden, _ = parts.projection(features(parts.features, input_values).transpose(1, 2))
    positions = parts.positions(hidden.transpose(1, 2))[:, :, : hidden.shape[1]]  # an even kernel gives one frame too many
    hidden = hidden + parts.activation(positions).transpose(1, 2)
    hidden = hidden if norm_last else parts.norm(hidden)
    for layer in parts.layers:
        hidden = layer(hidden)
    return parts.head(parts.norm(hidden) if norm_last else hidden)


def features(extractor: Any, input_values: torch.Tensor) -> torch.Tensor:
    """The convolutions: [batch, samples] to [batch, channels, frames]."""
    from torch.nn import GroupNorm
    from torch.nn.functional import layer_norm

    hidden = input_values[:, None]
    for layer in extractor.conv_layers:
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, GroupNorm):
            # A group a channel: the norm of each row of frames, which engines have as one operator that sums in float32.
            hidden = layer.conv(hidden)
            hidden = layer_norm(hidden, hidden.shape[-1:], eps=norm.eps)
            hidden = layer.activation(hidden * norm.weight[:, None] + norm.bias[:, None])
        else:
            hidden = layer(hidden)
    return hidden


def _folded(conv: Any) -> Any:
    """The convolution with its weight norm (direction and length apart, which training wants) multiplied out."""
    import torch

    weight = conv.weight.detach()
    with torch.device("meta"):
        plain = torch.nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, groups=conv.groups)
    plain.weight, plain.bias = torch.nn.Parameter(weight), conv.bias
    return plain
