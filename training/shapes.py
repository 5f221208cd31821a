"""Pictures of coloured shapes with their boxes: the data of the detector and of the classifier, drawn on the training device."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (0.85, 0.15, 0.15), "green": (0.15, 0.65, 0.2), "blue": (0.15, 0.3, 0.85), "yellow": (0.95, 0.85, 0.2)}
EDGE = 0.7  # pixels over which an edge fades


@dataclass(frozen=True)
class Pictures:
    """``pixels`` float [batch, 3, side, side] in [0, 1], whole steps of 1/255. Up to MOST shapes each, of which ``present`` bool
    [batch, MOST] tells the real ones: ``shapes`` and ``colours`` int [batch, MOST], ``boxes`` [batch, MOST, 4] as centre x,
    centre y, width, height, in shares of the side."""

    pixels: Tensor
    present: Tensor
    shapes: Tensor
    colours: Tensor
    boxes: Tensor


def draw(batch: int, side: int, most: int, generator: torch.Generator, *, exactly: int | None = None) -> Pictures:
    """Seeded pictures with 1 to ``most`` shapes (or ``exactly`` that many), apart from each other, on a lit, noisy ground."""
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    count = torch.randint(1, most + 1, (batch, 1), generator=generator, device=device)
    if exactly is not None:
        count = torch.full_like(count, exactly)
    shapes = torch.randint(len(SHAPES), (batch, most), generator=generator, device=device)
    colours = torch.randint(len(COLOURS), (batch, most), generator=generator, device=device)
    radius = uniform(0.10, 0.20, batch, most)
    centres = torch.zeros(batch, most, 2, device=device)
    present = torch.zeros(batch, most, dtype=torch.bool, device=device)
    for index in range(most):  # each at the first of 12 random places that is free; left out where none is
        places = radius[:, index, None, None] + (1 - 2 * radius[:, index, None, None]) * uniform(0, 1, batch, 12, 2)
        apart = (
            (places[:, :, None] - centres[:, None, :index]).norm(dim=-1)
            - radius[:, None, :index]
            - radius[:, index, None, None]
        )
        free = ((apart > 0.01) | ~present[:, None, :index]).all(-1)
        first = free.int().argmax(1)
        centres[:, index] = places[torch.arange(batch, device=device), first]
        present[:, index] = free.any(1) & (index < count[:, 0])

    axis = (torch.arange(side, device=device) + 0.5) / side
    ground = uniform(0.0, 1.0, batch, 3, 1, 1) * 0.35 + torch.where(uniform(0, 1, batch, 1, 1, 1) < 0.5, 0.0, 0.6)
    slope = uniform(-0.15, 0.15, batch, 1, 1, 1) * axis[:, None] + uniform(-0.15, 0.15, batch, 1, 1, 1) * axis
    pixels = ground + slope
    palette = torch.tensor(list(COLOURS.values()), device=device)
    boxes = torch.zeros(batch, most, 4, device=device)
    for index in range(most):
        x = axis[None, None, :] - centres[:, index, 0, None, None]
        y = axis[None, :, None] - centres[:, index, 1, None, None]
        distance, half_width, top, bottom = _signed_distance(x, y, radius[:, index], shapes[:, index])
        cover = (0.5 - distance * side / EDGE).clamp(0, 1) * present[:, index, None, None]
        colour = (palette[colours[:, index]] + uniform(-0.08, 0.08, batch, 3))[:, :, None, None]
        pixels = torch.lerp(pixels.expand(batch, 3, side, side), colour.expand(batch, 3, side, side), cover[:, None])
        middle = centres[:, index] + torch.stack([torch.zeros_like(top), (top + bottom) / 2], -1)
        boxes[:, index] = torch.cat([middle, torch.stack([2 * half_width, bottom - top], -1)], -1)
    noise = uniform(0, 0.04, batch, 1, 1, 1) * torch.randn(pixels.shape, generator=generator, device=device)
    pixels = ((pixels + noise).clamp(0, 1) * 255).round() / 255
    return Pictures(pixels, present, shapes, colours, boxes)


def _signed_distance(x: Tensor, y: Tensor, radius: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance to the edge, negative inside, [batch, side, side]; and half the width, top and bottom of the box around the centre.

    A circle of ``radius``; a square and an upright triangle with equal sides, whose corners lie on that circle.
    """
    size = radius[:, None, None]
    circle = (x.square() + y.square()).sqrt() - size
    square = torch.maximum(x.abs(), y.abs()) - size / math.sqrt(2)
    sixty = math.pi / 3
    triangle = torch.maximum(x.abs() * math.sin(sixty) - y * math.cos(sixty), y) - size / 2
    kind = shape[:, None, None]
    distance = torch.where(kind == 0, circle, torch.where(kind == 1, square, triangle))
    half_side = radius / math.sqrt(2)
    half_width = torch.where(shape == 0, radius, torch.where(shape == 1, half_side, radius * math.sin(sixty)))
    top = torch.where(shape == 1, -half_side, -radius)
    bottom = torch.where(shape == 0, radius, torch.where(shape == 1, half_side, radius / 2))
    return distance, half_width, top, bottom


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """As the image processors: (pixel - mean) / std, by channel."""
    shift, scale = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (mean, std))
    return (pixels - shift) / scale


def examples(pictures: Pictures, count: int, folder: Path) -> None:
    """The first ``count`` pictures as shape.N.png, and examples.json with what is in them: boxes as x0, y0, x1, y1 in pixels."""
    listed = []
    for index in range(count):
        pixels = (pictures.pixels[index] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        name = f"shapes.{index}.png"
        Image.fromarray(pixels).save(folder / name)
        real = pictures.present[index].nonzero()[:, 0].tolist()
        centre, size = pictures.boxes[index, real].split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], -1) * pictures.pixels.shape[-1]
        labels = [SHAPES[int(pictures.shapes[index, item])] for item in real]
        colours = [list(COLOURS)[int(pictures.colours[index, item])] for item in real]
        boxes = [[round(value, 2) for value in box] for box in corners.tolist()]
        things = [dict(label=a, colour=b, box=c) for a, b, c in zip(labels, colours, boxes, strict=True)]
        listed.append({"file": name, "objects": things})
    (folder / "examples.json").write_text(json.dumps(listed, indent=1) + "\n")
