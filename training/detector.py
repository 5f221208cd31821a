"""Train a small DETR (Carion et al., 2020, https://arxiv.org/abs/2005.12872) to find coloured circles, squares and triangles.

    python training/detector.py --out OUT/detr --minutes 4

Every batch is drawn anew (shapes.py). Measures the average precision at an intersection over union of 0.5 on held-out pictures.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from common import Run, arguments, mean, save, save_image_settings
from shapes import SHAPES, Pictures, draw, examples, normalise
from torch import Tensor, nn
from torch.nn import functional
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

SIDE = 192  # pixels; the backbone makes 6 x 6 positions of them
QUERIES = 6
MOST = 3  # shapes in a picture
HELD_OUT_SEED = 1_000_003
SHIPPED = 8  # of them, as PNG files for the tests
NO_OBJECT_WEIGHT = 0.2
# DETR's weights of the terms of its loss and of its matching: class, L1 of the boxes, generalised IoU
CLASS, L1, GIOU = 1.0, 5.0, 2.0
ASSIGNMENTS = torch.tensor(list(permutations(range(QUERIES), MOST)))  # [assignments, MOST]: the query of each shape


def build() -> Any:
    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[1, 2, 2, 2], layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        image_size=[SIDE, SIDE],  # not a field of DETR's: the fixed size that this project's graphs have
        num_queries=QUERIES,
        d_model=128,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        dropout=0.0,
        auxiliary_loss=True,
        id2label=dict(enumerate(SHAPES)),
        label2id={name: index for index, name in enumerate(SHAPES)},
    )
    model: Any = DetrForObjectDetection(config)
    model.requires_grad_(True)  # DETR freezes the stem, which comes trained there
    return model


def swap_norms(module: nn.Module, live: bool) -> None:
    """Frozen batch norms, which are DETR's, for live ones while the backbone learns; and back, with what they learned."""
    for name, child in module.named_children():
        if live and type(child).__name__ == "DetrFrozenBatchNorm2d":
            setattr(module, name, nn.BatchNorm2d(len(child.weight), momentum=0.02).to(child.weight.device))
        elif not live and isinstance(child, nn.BatchNorm2d):
            from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

            frozen = DetrFrozenBatchNorm2d(child.num_features).to(child.weight.device)
            kept = {key: value for key, value in child.state_dict().items() if key != "num_batches_tracked"}
            frozen.load_state_dict(kept)
            setattr(module, name, frozen)
        else:
            swap_norms(child, live)


def corners(boxes: Tensor) -> Tensor:
    """[..., 4] from centre and size to x0, y0, x1, y1."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the generalised one (Rezatofighi et al., 2019), of boxes [..., 4] given by their corners."""
    inside = (
        (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(min=0).prod(-1)
    )
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - inside
    hull = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).prod(-1)
    iou = inside / (union + 1e-7)
    return iou, iou - (hull - union) / (hull + 1e-7)


def loss_of(logits: Tensor, boxes: Tensor, truth: Pictures) -> Tensor:
    """DETR's set loss of one decoder layer: logits [batch, queries, classes + 1], boxes [batch, queries, 4].

    The best assignment is found among all of them, 120 for 6 queries and 3 shapes: on the GPU that is less than a Hungarian
    algorithm on the host.
    """
    batch = len(logits)
    rows = torch.arange(batch, device=logits.device)[:, None]
    real = truth.present.float()
    with torch.no_grad():
        likely = logits.softmax(-1)[rows, :, truth.shapes].transpose(1, 2)  # [batch, queries, MOST]
        distance = (boxes[:, :, None] - truth.boxes[:, None]).abs().sum(-1)
        _, giou = overlap(corners(boxes)[:, :, None], corners(truth.boxes)[:, None])
        cost = (-CLASS * likely + L1 * distance - GIOU * giou) * real[:, None]
        assignments = ASSIGNMENTS.to(logits.device)
        total = cost[:, assignments, torch.arange(MOST, device=logits.device)].sum(-1)  # [batch, assignments]
        chosen = assignments[total.argmin(1)]  # [batch, MOST]
    target = torch.full(logits.shape[:2], len(SHAPES), device=logits.device)
    target.scatter_(1, chosen, torch.where(truth.present, truth.shapes, len(SHAPES)))
    weight = torch.ones(len(SHAPES) + 1, device=logits.device)
    weight[-1] = NO_OBJECT_WEIGHT
    of_class = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), weight)
    matched = boxes[rows, chosen]
    _, giou = overlap(corners(matched), corners(truth.boxes))
    of_boxes = L1 * (matched - truth.boxes).abs().sum(-1) + GIOU * (1 - giou)
    return CLASS * of_class + (of_boxes * real).sum() / real.sum()


def layers(model: Any, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logits and boxes of every decoder layer, the last one last, float32."""
    hidden = model.model(pixel_values=pixels).intermediate_hidden_states
    return [(model.class_labels_classifier(h).float(), model.bbox_predictor(h).float().sigmoid()) for h in hidden]


@torch.no_grad()
def average_precision(model: Any, pictures: Pictures) -> float:
    """Mean over the classes of the area under precision over recall, each found shape with an IoU of 0.5 or more counted once."""
    model.eval()
    parts = [layers(model, inputs)[-1] for inputs in _inputs(pictures).split(100)]
    model.train()
    logits, boxes = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    scores = logits.softmax(-1)[..., :-1]
    present, shapes, truth = pictures.present.cpu(), pictures.shapes.cpu(), pictures.boxes.cpu()
    iou, _ = overlap(corners(boxes)[:, :, None], corners(truth)[:, None])  # [batch, queries, MOST]
    precisions = []
    for label in range(len(SHAPES)):
        real = present & (shapes == label)
        found: set[tuple[int, int]] = set()
        hits = []
        for flat in scores[..., label].flatten().argsort(descending=True).tolist():
            picture, query = divmod(flat, scores.shape[1])
            overlaps = torch.where(real[picture], iou[picture, query], 0.0)
            best = int(overlaps.argmax())
            hit = float(overlaps[best]) >= 0.5 and (picture, best) not in found
            if hit:
                found.add((picture, best))
            hits.append(hit)
        true = torch.tensor(hits).cumsum(0)
        precision = true / torch.arange(1, len(true) + 1)
        envelope = precision.flip(0).cummax(0).values.flip(0)
        precisions.append(float(envelope[torch.tensor(hits)].sum() / real.sum()))
    return mean(precisions)


def _inputs(pictures: Pictures) -> Tensor:
    return normalise(pictures.pixels, tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))


def main() -> None:
    parser = arguments(__doc__, minutes=4, learning_rate=4e-4, batch=64)
    parser.add_argument("--pictures", type=int, default=500, help="held-out ones")
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    held_out = draw(chosen.pictures, SIDE, MOST, torch.Generator(chosen.device).manual_seed(HELD_OUT_SEED))
    model = build().to(chosen.device)
    swap_norms(model, live=True)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), "transformers renamed DETR's frozen norms"
    model.train()
    run = Run(chosen, model)
    generator = torch.Generator(chosen.device).manual_seed(chosen.seed)
    while not run.done:
        pictures = draw(chosen.batch, SIDE, MOST, generator)
        with run.autocast:
            outputs = layers(model, _inputs(pictures))
        loss = torch.stack([loss_of(logits, boxes, pictures) for logits, boxes in outputs]).sum()
        run.update(loss)
        if run.step % 1000 == 0:
            run.log(loss, held_out_average_precision=round(average_precision(model, held_out), 4))
        elif run.step % 100 == 0 or run.step == 1 or run.done:
            run.log(loss)
    swap_norms(model, live=False)
    measured = {
        "held_out_average_precision_at_iou_0.5": round(average_precision(model, held_out), 4),
        "held_out_pictures": chosen.pictures,
    }
    model.config.auxiliary_loss = False
    save(run, model, chosen.out, measured=measured, trained_on="drawn pictures of shapes: training/shapes.py")
    save_image_settings(chosen.out, "DetrImageProcessor", SIDE, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    examples(held_out, SHIPPED, chosen.out)


if __name__ == "__main__":
    main()
