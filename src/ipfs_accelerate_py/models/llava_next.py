"""LLaVA-NeXT image-text generation (Liu et al., 2024, https://llava-vl.github.io/blog/2024-01-30-llava-next): LLaVA with tiles.

The image goes to the vision tower whole, and again in tiles, at the resolution of the configuration's ``image_grid_pinpoints`` that fits
it best. The tiles' embeddings are put together as rows of the whole picture, without those of the border that was added, each row with a
``newline`` at its end.

The number of tiles and of embeddings follows from the image's shape, and a graph has static ones. So there is one size for all: 640 x
480 pixels at tiles of 336 (5 tiles, 2340 embeddings), and its like at others. An image of another shape gets a black border first, with
a note.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..lazy_numpy import np
from .base import Size
from .llava import CLIP_L_336, Llava, project
from .processing.image import BICUBIC, as_image, check_settings, resize

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
MISTRAL = {
    "model_type": "mistral",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "sliding_window": None,
    "tie_word_embeddings": False,
}


class LlavaNext(Llava):
    name = "llava_next"
    transformers_model_types = ("llava_next",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                "image_token_index": 999,
                "image_grid_pinpoints": [[42, 84], [84, 42], [84, 84]],
                "vision_config": {
                    **CLIP_L_336,
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "projection_dim": 32,
                    "image_size": 42,
                },
                "text_config": {
                    **MISTRAL,
                    "vocab_size": 1000,
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 256,
                    "bos_token_id": None,
                    "eos_token_id": None,
                },
            },
        ),
        "7b": Size(
            "llava-hf/llava-v1.6-mistral-7b-hf",
            {
                "image_token_index": 32000,
                "image_grid_pinpoints": PINPOINTS,
                "vision_feature_layer": -2,
                "vision_feature_select_strategy": "default",
                "vision_config": CLIP_L_336,
                "text_config": {
                    **MISTRAL,
                    "vocab_size": 32064,
                    "hidden_size": 4096,
                    "intermediate_size": 14336,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 8,
                    "max_position_embeddings": 32768,
                },
            },
        ),
    }

    @property
    def default_size(self) -> str:
        return "7b"  # the smallest that is published

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import LlavaNextConfig

        return LlavaNextConfig(**copy.deepcopy(dict(arguments)))  # transformers writes into the parts

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import LlavaNextForConditionalGeneration

        return LlavaNextForConditionalGeneration(config).eval()

    def image_tokens(self, arguments: Mapping[str, Any]) -> int:
        """Embeddings in the block of the one image size that the graphs have."""
        vision = arguments["vision_config"]
        if super().image_tokens(arguments) != (vision["image_size"] // vision["patch_size"]) ** 2:
            raise UserError("Tiles can be put together only where the vision tower gives one embedding for each patch of them.")
        return len(packing(self.example_size(arguments), arguments))

    def example_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        tile = arguments["vision_config"]["image_size"]
        return tile * 10 // 7, tile * 40 // 21

    def vision(self, config: Any) -> Any:
        arguments = config.to_dict()
        return partial(project_tiles, order=packing(self.example_size(arguments), arguments))

    def pixels(self, config: Any, images: Sequence[np.ndarray], settings: Mapping[str, Any]) -> np.ndarray:
        """float32 [batch, tiles, 3, height, width]: the whole image, then its tiles from the top left, row by row."""
        from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

        check_settings(settings)
        cut = LlavaNextImageProcessorPil(**{**settings, "image_grid_pinpoints": config.image_grid_pinpoints})
        tiles = np.stack(cut(list(images))["pixel_values"]).astype(np.float32)
        side = config.vision_config.image_size
        if tiles.shape[-2:] != (side, side):
            raise UserError(
                f"The processing settings make tiles of {tiles.shape[-1]} x {tiles.shape[-2]} pixels, and the model takes "
                f"{side} x {side}: correct its preprocessor_config.json."
            )
        return tiles

    def load_images(self, config: Any, values: Sequence[Any]) -> tuple[list[np.ndarray], tuple[str, ...]]:
        size = self.example_size(config.to_dict())
        images, notes = [], []
        for number, image in enumerate((as_image(value) for value in values), 1):
            images.append(letterboxed(image, size))
            if image.shape[:2] != size:
                given, made = (f"{width} x {height}" for height, width in (image.shape[:2], size))
                border = "" if image.shape[0] * size[1] == image.shape[1] * size[0] else " with a black border"
                notes.append(
                    f"Image {number} was scaled from {given} to {made} pixels{border}, the size that the graph was made for."
                )
        return images, tuple(notes)

    def forward_inputs(self, config: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        size = self.example_size(config.to_dict())
        sizes = torch.tensor([size] * len(inputs["input_ids"]), device=inputs["input_ids"].device)
        return {**inputs, "image_sizes": sizes}

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return super().loss(model, self.forward_inputs(model.config, inputs))


def letterboxed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole image scaled to fit ``size`` (height, width), in the middle of a black picture of that size."""
    if image.shape[:2] == size:
        return image
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    above, left = (size[0] - height) // 2, (size[1] - width) // 2
    border = ((above, size[0] - height - above), (left, size[1] - width - left), (0, 0))
    return np.pad(resize(image, (height, width), BICUBIC), border)


def project_tiles(model: Any, pixel_values: torch.Tensor, order: np.ndarray) -> torch.Tensor:
    """Embeddings [batch, image tokens, hidden] of ``pixel_values`` [batch, tiles, 3, height, width], in the ``order`` of ``packing``."""
    import torch

    features = project(model, pixel_values.flatten(0, 1))
    features = features.reshape(-1, pixel_values.shape[1] * features.shape[1], features.shape[2])
    newline = model.model.image_newline.expand(features.shape[0], 1, -1)
    return torch.cat([features, newline], dim=1).index_select(1, torch.from_numpy(order).to(features.device))


def packing(size: tuple[int, int], arguments: Mapping[str, Any]) -> np.ndarray:
    """Which embedding stands at each place of an image's block, int32 [image tokens]. Patch p of tile t has the number t * patches + p
    (tile 0 is the whole image), and the newline comes after them all. ``size`` is the image's height and width."""
    vision = arguments["vision_config"]
    tile, side = vision["image_size"], vision["image_size"] // vision["patch_size"]
    rows, columns = (edge // tile for edge in best_resolution(size, arguments.get("image_grid_pinpoints") or PINPOINTS))
    whole, newline = np.arange(side * side), (1 + rows * columns) * side * side
    picture = np.arange(side * side, newline).reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    picture = unpadded(picture.reshape(rows * side, columns * side), size)
    lines = np.concatenate([picture, np.full((len(picture), 1), newline)], axis=1)
    return np.concatenate([whole, lines.ravel()]).astype(np.int32)


def best_resolution(size: tuple[int, int], pinpoints: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Of the (height, width) ``pinpoints`` the one that keeps most of the image's pixels, and then wastes least."""

    def merit(pinpoint: Sequence[int]) -> tuple[int, int]:
        scale = min(pinpoint[0] / size[0], pinpoint[1] / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - pinpoint[0] * pinpoint[1]

    height, width = max(pinpoints, key=merit)
    return height, width


def unpadded(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``picture`` [rows, columns] without the border that gave an image of ``size`` (height, width) this shape."""
    (rows, columns), (height, width) = picture.shape, size
    if width / height > columns / rows:
        border = (rows - int(round(height * (columns / width), 7))) // 2
        return picture[border : rows - border]
    border = (columns - int(round(width * (rows / height), 7))) // 2
    return picture[:, border : columns - border]
