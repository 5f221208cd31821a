"""What the training scripts share: arguments, the clock that ends a run, the learning rate, the loss curve, and saved models."""

from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

WARM_UP = 0.03  # of the run
LAST_RATE = 0.02  # of the highest learning rate


def arguments(description: str | None, minutes: float, learning_rate: float, batch: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and its loss curve")
    parser.add_argument("--minutes", type=float, default=minutes, help="length of the training; the learning rate follows it")
    parser.add_argument("--steps", type=int, help="train this many steps instead, however long they take")
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


class Run:
    """One training run. ``progress`` goes from 0 to 1 with the clock (or the steps), and the learning rate with it: up during the
    first WARM_UP, then down along a cosine. Loading and compiling are not part of its time: the clock starts with ``start``."""

    def __init__(self, chosen: argparse.Namespace, model: nn.Module) -> None:
        self.chosen = chosen
        self.model = model
        self.step = 0
        self.before_s = 0.0  # trained before this process, when it resumes
        self.losses: list[dict[str, float]] = []
        decayed = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]
        others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        fused = chosen.device.startswith("cuda")
        self.optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, betas=(0.9, 0.98), fused=fused)
        # On a CPU, bfloat16 is faster only where the processor multiplies matrices of it.
        half = fused or (chosen.device == "cpu" and torch.cpu._is_amx_tile_supported())
        self.autocast = torch.autocast(chosen.device.split(":")[0], dtype=torch.bfloat16, enabled=half)
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before_s + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        return self.step / self.chosen.steps if self.chosen.steps else self.seconds / (60 * self.chosen.minutes)

    @property
    def done(self) -> bool:
        return self.progress >= 1

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step, with the gradient's norm clipped to 1."""
        progress = min(self.progress, 1.0)
        cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.chosen.learning_rate * min(1.0, (progress + 1e-3) / WARM_UP) * cosine
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1

    def log(self, loss: torch.Tensor | float, **more: float) -> None:
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "loss": round(float(torch.as_tensor(loss).detach()), 4),
            **more,
        }
        self.losses.append(row)
        print(json.dumps(row), flush=True)


def save(run: Run, model: Any, folder: Path, *, measured: dict[str, Any], trained_on: str) -> None:
    """config.json and float16 safetensors as transformers saves them, losses.csv, and provenance.json: what it is and how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    model.float()
    with (folder / "losses.csv").open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in run.losses for key in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(run.losses)
    device = torch.cuda.get_device_name() if run.chosen.device.startswith("cuda") else platform.machine()
    provenance = {
        "trained_on": trained_on,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": run.step,
        "batch": run.chosen.batch,
        "seconds": round(run.seconds, 1),
        "learning_rate": run.chosen.learning_rate,
        "seed": run.chosen.seed,
        "device": device,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "measured": measured,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    print(json.dumps(measured), flush=True)


def save_image_settings(folder: Path, kind: str, side: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """preprocessor_config.json, as transformers' own processors read it, for pictures of ``side`` pixels."""
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_pad": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
