"""Train a small wav2vec2 with CTC (Baevski et al., 2020, https://arxiv.org/abs/2006.11477; Graves et al., 2006) from raw speech.

    python training/transcriber.py --data DATA --out OUT/wav2vec2 --minutes 4

The speech of speech.py, on the training device; every batch has other speeds, gains, noise and silence around the words. Measures the
word error rate on held-out phrases in held-out voices.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Run, arguments, save
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

SAMPLE_RATE = 16_000  # Hz
# The vocabulary of facebook/wav2vec2-base-960h, so that its tokenizer's settings hold here too.
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
CONFIG: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "input_samples": 80_000,  # not a field of wav2vec2's: the fixed length that this project's graphs have
    "conv_dim": (96,) * 7,
    "hidden_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 640,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 16,
    "feat_proj_dropout": 0.0,
    "hidden_dropout": 0.05,
    "attention_dropout": 0.05,
    "activation_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PADDED_S = (2.5, 6.0)  # length of a batch
SPEEDS = (0.88, 1.12)
NOISE_DB = (12.0, 50.0)  # signal above noise
SILENCE_S = 0.4  # at most, before and after


class Speech:
    """The phrases of one split, on the device."""

    def __init__(self, data: Path, split: str, device: str, most: int | None = None) -> None:
        levels = np.frombuffer(lzma.decompress((data / "speech.u8.xz").read_bytes()), np.uint8)
        compressed = torch.linspace(-1, 1, 256)
        table = compressed.sign() * (256 ** compressed.abs() - 1) / 255
        self.samples = table.to(device)[torch.from_numpy(levels.astype(np.int64)).to(device)]
        rows = [row for row in json.loads((data / "speech.json").read_text()) if row["split"] == split][:most]
        self.texts = [row["text"].upper() for row in rows]
        self.starts = torch.tensor([row["start"] for row in rows], device=device)
        self.lengths = torch.tensor([row["samples"] for row in rows], device=device)
        labels = [[VOCABULARY.index(character) for character in text.replace(" ", "|")] for text in self.texts]
        longest = max(map(len, labels))
        self.labels = torch.tensor([row + [-100] * (longest - len(row)) for row in labels], device=device)

    def batch(self, chosen: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Waves [batch, samples] as the feature extractor gives them: mean 0 and variance 1 over an utterance, then zeros.

        With a generator: resampled (speed and pitch), with silence around, noise and a random length of the batch.
        """
        device, count = self.samples.device, len(chosen)

        def uniform(low: float, high: float) -> torch.Tensor:
            if generator is None:
                return torch.full((count, 1), (low + high) / 2, device=device)
            return low + (high - low) * torch.rand((count, 1), generator=generator, device=device)

        silence = 0.0 if generator is None else SILENCE_S * SAMPLE_RATE
        speed, before, after = uniform(*SPEEDS), uniform(0, silence), uniform(0, silence)
        lengths = self.lengths[chosen, None] / speed
        ends = before + lengths + after
        total = int(ends.max()) + 1
        if generator is not None:
            wanted = float(torch.empty(()).uniform_(*PADDED_S)) * SAMPLE_RATE
            total = max(total, int(wanted))
        times = torch.arange(total, device=device)[None, :]
        positions = (times - before) * speed
        spoken = (positions >= 0) & (positions < self.lengths[chosen, None] - 1)
        left = positions.clamp(min=0).minimum(self.lengths[chosen, None] - 2).floor()
        index = self.starts[chosen, None] + left.long()
        wave = torch.lerp(self.samples[index], self.samples[index + 1], (positions - left).clamp(0, 1)) * spoken
        inside = times < ends
        if generator is not None:
            power = (wave.square().sum(1, keepdim=True) / lengths).sqrt()
            noise = torch.randn(wave.shape, generator=generator, device=device)
            wave = wave + noise * power * 10 ** (-uniform(*NOISE_DB) / 20)
        wave = wave * inside
        count_inside = inside.sum(1, keepdim=True)
        average = wave.sum(1, keepdim=True) / count_inside
        variance = ((wave - average).square() * inside).sum(1, keepdim=True) / count_inside
        return (wave - average) / (variance + 1e-7).sqrt() * inside


def loss_of(model: Any, waves: torch.Tensor, labels: torch.Tensor, run: Run) -> torch.Tensor:
    """The CTC loss in nats a character; the network in bfloat16 on a GPU, the loss in float32."""
    with run.autocast:
        logits = model(waves).logits
    scores = functional.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    frames = torch.full((len(waves),), scores.shape[0], dtype=torch.long)
    counts = (labels >= 0).sum(1)
    return functional.ctc_loss(scores, labels.clamp(min=0), frames, counts.cpu(), blank=0, zero_infinity=True)


def transcribe(logits: torch.Tensor) -> list[str]:
    """Best path: the likeliest character of each frame, repeats merged, blanks dropped."""
    texts = []
    for row in logits.argmax(-1).tolist():
        merged = [token for index, token in enumerate(row) if index == 0 or token != row[index - 1]]
        texts.append("".join(VOCABULARY[token] for token in merged if token > 3).replace("|", " ").strip())
    return texts


def word_errors(expected: str, actual: str) -> int:
    """Levenshtein distance in words."""
    first, second = expected.split(), actual.split()
    distances = list(range(len(second) + 1))
    for i, word in enumerate(first, 1):
        previous, distances[0] = distances[0], i
        for j, other in enumerate(second, 1):
            previous, distances[j] = distances[j], min(distances[j] + 1, distances[j - 1] + 1, previous + (word != other))
    return distances[-1]


@torch.no_grad()
def word_error_rate(model: Any, speech: Speech, noisy: torch.Generator | None = None) -> tuple[float, list[tuple[str, str]]]:
    model.eval()
    pairs: list[tuple[str, str]] = []
    for chosen in torch.arange(len(speech.texts), device=speech.samples.device).split(1 if noisy is None else 25):
        logits = model(speech.batch(chosen, noisy)).logits
        pairs += zip([speech.texts[index] for index in chosen.tolist()], transcribe(logits), strict=True)
    model.train()
    errors = sum(word_errors(expected, actual) for expected, actual in pairs)
    return errors / sum(len(expected.split()) for expected, _ in pairs), pairs


def main() -> None:
    parser = arguments(__doc__, minutes=4, learning_rate=1e-3, batch=64)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--phrases", type=int, help="held-out ones, in place of all")
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    speech = Speech(chosen.data, "training", chosen.device)
    held_out = Speech(chosen.data, "held_out", chosen.device, chosen.phrases)
    model: Any = Wav2Vec2ForCTC(Wav2Vec2Config(**CONFIG)).to(chosen.device)
    model.train()
    run = Run(chosen, model)
    generator = torch.Generator(chosen.device).manual_seed(chosen.seed)
    while not run.done:
        indices = torch.randint(len(speech.texts), (chosen.batch,), generator=generator, device=chosen.device)
        loss = loss_of(model, speech.batch(indices, generator), speech.labels[indices], run)
        run.update(loss)
        if run.step % 250 == 0:
            noisy = torch.Generator(chosen.device).manual_seed(1)
            run.log(loss, held_out_word_error_rate=round(word_error_rate(model, held_out, noisy)[0], 4))
        elif run.step % 50 == 0 or run.step == 1 or run.done:
            run.log(loss)
    clean_rate, pairs = word_error_rate(model, held_out)
    noisy_rate, _ = word_error_rate(model, held_out, torch.Generator(chosen.device).manual_seed(1))
    measured = {
        "held_out_word_error_rate": round(clean_rate, 4),
        "held_out_word_error_rate_with_noise": round(noisy_rate, 4),
        "held_out_phrases": len(pairs),
        "wrong": [pair for pair in pairs if pair[0] != pair[1]][:10],
    }
    save(run, model, chosen.out, measured=measured, trained_on="speech synthesised by espeak-ng: training/speech.py")
    vocabulary = chosen.out / "vocab.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate(VOCABULARY)}))
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(chosen.out)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(chosen.out)


if __name__ == "__main__":
    main()
