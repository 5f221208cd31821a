"""Train a small llama or qwen2 on the corpus of corpus.py, and measure its perplexity on the held-out documents.

    python training/language_model.py llama --data DATA --out OUT/llama --minutes 4.5

Resumes from OUT/checkpoint.pt where that is, so that a run that was stopped goes on with the time that it has left.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Run, arguments, save
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEQUENCE = 512  # by default
END = "<|endoftext|>"
CHECKPOINT_S = 60
PROMPTS = ("The program reads", "A file is", "If you want to", "This function returns", "In the past,")
COMMON = {
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
# Widths are multiples of 256, which llama.cpp's 2- and 3-bit formats need, with heads of 64. Millions of parameters, at a vocabulary of
# 8192, in the comments.
SHAPES: dict[str, dict[str, dict[str, int]]] = {
    "llama": {
        "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 768},  # 7.2
        "medium": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024},  # 19.9
        # For a CPU and a vocabulary of some thousands.
        "mini": {
            "hidden_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 512,
        },
    },
    "qwen2": {
        "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 768},  # 6.8
        "medium": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024},  # 18.4
    },
}


def build(architecture: str, size: str, vocabulary: int, sequence: int) -> Any:
    """llama with as many key-value heads as heads (unless its shape says otherwise) and no biases; qwen2 with half as many and
    biases of the projections."""
    if size not in SHAPES[architecture]:
        raise SystemExit(f"{architecture} has the sizes {', '.join(SHAPES[architecture])}")
    shape = SHAPES[architecture][size]
    heads = shape["num_attention_heads"]
    common = {**COMMON, "vocab_size": vocabulary, "max_position_embeddings": sequence}
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**{**common, "num_key_value_heads": heads, "attention_bias": False, **shape}))
    return Qwen2ForCausalLM(Qwen2Config(**common, **shape, num_key_value_heads=heads // 2))


def tokens(path: Path, device: str) -> torch.Tensor:
    """int32 [tokens] of a file of corpus.py; on the device from the start, as it is only some 100 MB."""
    return torch.from_numpy(np.fromfile(path, "<u2").astype(np.int32)).to(device)


def windows(corpus: torch.Tensor, starts: torch.Tensor, sequence: int) -> torch.Tensor:
    """int64 [batch, sequence + 1]"""
    return corpus[starts[:, None] + torch.arange(sequence + 1, device=corpus.device)].long()


def loss_of(model: Any, batch: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(run: Run, model: Any, corpus: torch.Tensor, most: int | None = None) -> float:
    """Mean negative log-likelihood in nats a token over consecutive windows, all of them or ``most`` spread evenly."""
    model.eval()
    sequence = run.chosen.sequence
    starts = torch.arange(0, len(corpus) - sequence - 1, sequence, device=corpus.device)
    if most is not None and len(starts) > most:
        starts = starts[:: len(starts) // most][:most]
    losses = []
    for part in starts.split(max(1, 32 * SEQUENCE // sequence)):
        with run.autocast:
            losses.append(float(loss_of(model, windows(corpus, part, sequence))) * len(part))
    model.train()
    return sum(losses) / len(starts)


def compiled(model: Any, run: Run, batch: torch.Tensor) -> Any:
    """torch.compile's model, tried on one batch; the plain one, with the reason in the log, where this machine cannot compile."""
    try:
        candidate = torch.compile(model)
        with run.autocast:
            loss_of(candidate, batch).backward()
    except (
        RuntimeError,
        ImportError,
        OSError,
        AttributeError,
    ) as failed:  # torch._dynamo's and inductor's errors are RuntimeErrors
        print(f"torch.compile failed, training goes on without it: {type(failed).__name__}: {str(failed)[:500]}", flush=True)
        return model
    return candidate


def samples(model: Any, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """What the model writes after each prompt: greedily, and drawn with temperature 0.7 from the 40 likeliest tokens."""
    model.eval()
    written = {}
    for prompt in PROMPTS:
        inputs = tokenizer(f"{END}{prompt}", return_tensors="pt").to(model.device)
        greedy = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        torch.manual_seed(0)
        drawn = model.generate(**inputs, max_new_tokens=48, do_sample=True, temperature=0.7, top_k=40)
        for kind, ids in (("greedy", greedy), ("drawn", drawn)):
            written[f"{kind}: {prompt}"] = tokenizer.decode(ids[0], skip_special_tokens=True)
    return written


def main() -> None:
    parser = arguments(__doc__, minutes=4, learning_rate=1.5e-3, batch=128)
    parser.add_argument("architecture", choices=SHAPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", choices=("mini", "small", "medium"), default="medium")
    parser.add_argument("--sequence", type=int, default=SEQUENCE, help="tokens of a window, and of the model's context")
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_float32_matmul_precision("high")
    chosen.out.mkdir(parents=True, exist_ok=True)

    corpus = tokens(chosen.data / "train.u16", chosen.device)
    held_out = tokens(chosen.data / "held_out.u16", chosen.device)
    reading = PreTrainedTokenizerFast(tokenizer_file=str(chosen.data / "tokenizer.json"))
    model = build(chosen.architecture, chosen.size, len(reading), chosen.sequence).to(chosen.device)
    run = Run(chosen, model)
    checkpoint = chosen.out / "checkpoint.pt"
    generator = torch.Generator(chosen.device).manual_seed(chosen.seed)
    if checkpoint.is_file():
        stored = torch.load(checkpoint, map_location=chosen.device, weights_only=True)
        model.load_state_dict(stored["model"])
        run.optimizer.load_state_dict(stored["optimizer"])
        run.step, run.before_s, run.losses = stored["step"], stored["seconds"], stored["losses"]
        generator.manual_seed(chosen.seed + run.step)
    forward = model
    if chosen.compile:
        starts = torch.zeros(chosen.batch, dtype=torch.long, device=chosen.device)
        forward = compiled(model, run, windows(corpus, starts, chosen.sequence))
    model.train()
    run.start()
    saved = time.monotonic()
    while not run.done:
        starts = torch.randint(len(corpus) - chosen.sequence - 1, (chosen.batch,), generator=generator, device=chosen.device)
        with run.autocast:
            loss = loss_of(forward, windows(corpus, starts, chosen.sequence))
        run.update(loss)
        if run.step % 500 == 0 or (run.step % 50 == 0 and run.step < 500) or run.step == 1:
            run.log(loss, held_out=round(held_out_loss(run, model, held_out, 64), 4))
        if time.monotonic() - saved > CHECKPOINT_S:
            state = {"model": model.state_dict(), "optimizer": run.optimizer.state_dict()}
            torch.save({**state, "step": run.step, "seconds": run.seconds, "losses": run.losses}, checkpoint)
            saved = time.monotonic()

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(chosen.data / "tokenizer.json"),
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=chosen.sequence,
    )
    loss_nats = held_out_loss(run, model, held_out)
    run.log(loss, held_out=round(loss_nats, 4))
    characters = len(tokenizer.decode(held_out[: len(held_out) // 10].tolist(), skip_special_tokens=True))
    measured = {
        "held_out_perplexity": round(math.exp(loss_nats), 3),
        "held_out_bits_per_character": round(loss_nats / math.log(2) * (len(held_out) // 10) / characters, 4),
        "training_tokens_seen": run.step * chosen.batch * chosen.sequence,
        "training_tokens": len(corpus),
        "compiled": forward is not model,
        "samples": samples(model, tokenizer),
    }
    save(run, model, chosen.out, measured=measured, trained_on="prose of free documentation: training/README.md, sources.csv")
    tokenizer.save_pretrained(chosen.out)
    shutil.copy(chosen.data / "held_out.json", chosen.out)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
