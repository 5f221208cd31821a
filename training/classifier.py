"""Train a small ViT (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929) to name a shape and its colour.

    python training/classifier.py --out OUT/vit --minutes 3

Every batch is drawn anew (shapes.py), one shape a picture. Measures the accuracy on held-out pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from common import Run, arguments, save, save_image_settings
from shapes import COLOURS, SHAPES, Pictures, draw, examples, normalise
from torch import Tensor
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

SIDE = 64  # pixels
HALF = (0.5, 0.5, 0.5)
LABELS = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
HELD_OUT_SEED = 1_000_003
SHIPPED = 8


def labels_of(pictures: Pictures) -> Tensor:
    return pictures.shapes[:, 0] * len(COLOURS) + pictures.colours[:, 0]


@torch.no_grad()
def accuracy(model: Any, pictures: Pictures) -> float:
    model.eval()
    predicted = torch.cat([model(part).logits.argmax(-1) for part in normalise(pictures.pixels, HALF, HALF).split(250)])
    model.train()
    return float((predicted == labels_of(pictures)).float().mean())


def main() -> None:
    parser = arguments(__doc__, minutes=3, learning_rate=1e-3, batch=256)
    parser.add_argument("--pictures", type=int, default=1000, help="held-out ones")
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    held_out = draw(chosen.pictures, SIDE, 1, torch.Generator(chosen.device).manual_seed(HELD_OUT_SEED))
    config = ViTConfig(
        image_size=SIDE,
        patch_size=8,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    model: Any = ViTForImageClassification(config).to(chosen.device)
    model.train()
    run = Run(chosen, model)
    generator = torch.Generator(chosen.device).manual_seed(chosen.seed)
    while not run.done:
        pictures = draw(chosen.batch, SIDE, 1, generator)
        with run.autocast:
            logits = model(normalise(pictures.pixels, HALF, HALF)).logits
        loss = functional.cross_entropy(logits.float(), labels_of(pictures))
        run.update(loss)
        if run.step % 1000 == 0:
            run.log(loss, held_out_accuracy=round(accuracy(model, held_out), 4))
        elif run.step % 100 == 0 or run.step == 1 or run.done:
            run.log(loss)
    measured = {"held_out_accuracy": round(accuracy(model, held_out), 4), "held_out_pictures": chosen.pictures}
    save(run, model, chosen.out, measured=measured, trained_on="drawn pictures of shapes: training/shapes.py")
    save_image_settings(chosen.out, "ViTImageProcessor", SIDE, HALF, HALF)
    examples(held_out, SHIPPED, chosen.out)


if __name__ == "__main__":
    main()
