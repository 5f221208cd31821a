"""Images: from what a person gives to the pixels of a model, bit for bit as transformers' Pillow processors do it.

An image is uint8 [height, width, 3], RGB. Settings have the names of ``preprocessor_config.json``: ``do_resize, size, resample,
do_center_crop, crop_size, do_rescale, rescale_factor, do_normalize, image_mean, image_std``. A size is ``{"height", "width"}``,
``{"shortest_edge"}``, ``{"shortest_edge", "longest_edge"}``, or the single number of older files, which is the shortest edge where
the settings say ``default_to_square: false`` and a square otherwise.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UnavailableError, UserError
from ...lazy_numpy import np
from ..rows import row_generators
from .files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

BILINEAR, BICUBIC = 2, 3  # Pillow's numbers, as stored in preprocessor_config.json
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
LONGEST_EDGE = 10_000  # pixels, of a size in the settings
LEAST_STD = 1e-6  # of normalised pixels: below it they are no use at float16, and soon infinite
LARGEST_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: 0.5 GB as RGB


def as_image(value: Any) -> np.ndarray:
    """uint8 [height, width, 3] of a path, the bytes of an image file, a Pillow image, or uint8 [height, width (, 1, 3 or 4)].

    A file is turned upright by its EXIF orientation, grey becomes RGB, and transparency is laid on white. Raises UserError with one
    sentence for anything else: no such file, not an image, truncated, zero size, another rank or dtype, not a number.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as missing:
        raise UnavailableError("Images need Pillow.", "Run: pip install 'ipfs_accelerate_py[torch]'") from missing
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, PIL.Image.Image):
        return _of_pillow(value, "The image")
    if isinstance(value, str | Path):
        name, source = f"'{value}'", io.BytesIO(read_bytes(value, "image"))
    elif isinstance(value, bytes | bytearray | memoryview):
        name, source = "What was given as the bytes of an image", io.BytesIO(value)
    else:
        raise UserError(
            f"An image is a path, the bytes of a file, a Pillow image or a NumPy array, not {type(value).__name__}."
        )
    if not source.getbuffer().nbytes:
        raise UserError(f"{name} is empty.")
    try:
        with PIL.Image.open(source) as opened:
            return _of_pillow(PIL.ImageOps.exif_transpose(opened), name)
    except PIL.UnidentifiedImageError as unknown:
        raise UserError(f"{name} is not an image that Pillow can read.") from unknown
    except PIL.Image.DecompressionBombError as bomb:
        raise UserError(f"{name} is too large: {bomb}") from bomb
    except (OSError, SyntaxError, ValueError) as broken:  # what Pillow's decoders raise
        raise UserError(f"{name} is a damaged or truncated image: {broken}.") from broken


def _of_pillow(image: Image, name: str) -> np.ndarray:
    import PIL.Image

    if 0 in image.size:
        raise UserError(f"{name} has zero size: {image.width} x {image.height} pixels.")
    if image.mode == "F" or image.mode.startswith("I"):
        raise UserError(f"{name} has pixels of mode '{image.mode}', more than 8 bits; convert it to 8 bits a channel first.")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _of_array(array: np.ndarray) -> np.ndarray:
    import PIL.Image

    shape = " x ".join(map(str, array.shape)) or "no dimensions"
    if array.size == 0:
        raise UserError(f"The image has zero size: {shape}.")
    if array.ndim not in (2, 3):
        hint = " A batch is a list of images." if array.ndim == 4 else ""
        raise UserError(f"An image has 2 or 3 dimensions (height, width, channels), not {array.ndim}: {shape}.{hint}")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        hint = " Move the channels to the end." if array.shape[0] in (1, 3, 4) else ""
        raise UserError(f"The last dimension of an image is its 1, 3 or 4 channels, and this one is {shape}.{hint}")
    if array.dtype != np.uint8:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError("The image has values that are not numbers or infinite.")
        raise UserError(f"The pixels of an image are uint8, 0 to 255, not {array.dtype}: scale and convert them first.")
    squeezed = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _of_pillow(PIL.Image.fromarray(np.ascontiguousarray(squeezed)), "The image")


def pixel_values(
    images: Sequence[np.ndarray] | np.ndarray, settings: Mapping[str, Any], expected: tuple[int, int] | None = None
) -> np.ndarray:
    """float32 [batch, 3, height, width] of uint8 images: resized, centre-cropped, rescaled and normalised by the ``settings``.

    ``expected`` is the height and width that the model takes; UserError where the settings make another size, or several.
    """
    check_settings(settings)
    arrays = [_pixels(image, settings) for image in images]
    for found in (array.shape[1:] for array in arrays):
        wanted = expected or arrays[0].shape[1:]
        if found != wanted:
            raise UserError(
                f"The processing settings make an image of {found[1]} x {found[0]} pixels, and the model takes "
                f"{wanted[1]} x {wanted[0]}: correct its preprocessor_config.json."
            )
    return np.stack(arrays)


def check_settings(settings: Mapping[str, Any]) -> None:
    """UserError that names the first setting which cannot be used."""

    def number(value: Any) -> bool:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6
        )  # so neither NaN nor infinite

    def edge(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LONGEST_EDGE

    def box(value: Any) -> bool:
        return edge(value) or (isinstance(value, Mapping) and edge(value.get("height")) and edge(value.get("width")))

    def edges(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        longest = value.get("longest_edge")
        return edge(value.get("shortest_edge")) and (longest is None or edge(longest))

    def channels(value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) == 3 and all(map(number, value))

    def require(name: str, usable: bool, wanted: str) -> None:
        if not usable:
            raise UserError(
                f"The processing setting {name} is {wanted}, not {settings.get(name)!r}: correct the model's preprocessor_config.json."
            )

    given = {"do_resize": True, "do_center_crop": False, "do_rescale": True, "do_normalize": True, **settings}
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        require(name, isinstance(given[name], bool), "true or false")
    if given["do_resize"]:
        size, resample = given.get("size"), given.get("resample", BILINEAR)
        require("size", box(size) or edges(size), f"height and width, or shortest_edge, in whole pixels up to {LONGEST_EDGE:,}")
        require("resample", number(resample) and resample in range(6), "the number of a filter of Pillow, 0 to 5")
    if given["do_center_crop"]:
        require("crop_size", box(given.get("crop_size")), f"height and width in whole pixels up to {LONGEST_EDGE:,}")
    if given["do_rescale"]:
        require("rescale_factor", number(given.get("rescale_factor", 1)), "a number")
    if given["do_normalize"]:
        require("image_mean", channels(given.get("image_mean")), "three numbers")
        std = given.get("image_std")
        require("image_std", channels(std) and min(std or (0,)) > LEAST_STD, "three numbers above 0")


def _pixels(image: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    square = settings.get("default_to_square", True)
    if settings.get("do_resize", True):
        image = resize(image, resized(image, settings["size"], square), settings.get("resample", BILINEAR))
    if settings.get("do_center_crop", False):
        image = centre_crop(image, resized(image, settings["crop_size"], square=True))
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else None
    mean_std = (settings["image_mean"], settings["image_std"]) if settings.get("do_normalize", True) else None
    return normalise(image, factor, mean_std)


def resized(image: np.ndarray, size: Mapping[str, int] | int, square: bool = True) -> tuple[int, int]:
    """Height and width that ``size`` asks of an image [height, width, 3]; edges keep the aspect ratio, rounded down."""
    if isinstance(size, int):
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if size.get("height") is not None:
        return size["height"], size["width"]
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    edge: float = size["shortest_edge"]
    longest = size.get("longest_edge")
    if longest is not None and long / short * edge > longest:
        edge = longest * short / long
    if short == round(edge):
        return height, width
    new_short, new_long = round(edge), int(edge * long / short)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resize(image: np.ndarray, size: tuple[int, int], resample: int = BILINEAR) -> np.ndarray:
    """uint8 [height, width, 3] of ``size`` (height, width), by Pillow's filter of this number, which averages when it shrinks."""
    import PIL.Image

    height, width = size
    if not 0 < height * width <= LARGEST_PIXELS:
        raise UserError(
            f"The image, {image.shape[1]} x {image.shape[0]} pixels, is too narrow: resized it is {width} x {height}."
        )
    return np.array(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling(resample)))


def centre_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of ``size`` (height, width); an image that is smaller gets a black border."""
    for axis, wanted in enumerate(size):
        missing = max(wanted - image.shape[axis], 0)
        border = [(0, 0)] * image.ndim
        border[axis] = (math.ceil(missing / 2), missing // 2)
        image = np.pad(image, border)
        start = (image.shape[axis] - wanted) // 2
        image = image.take(range(start, start + wanted), axis=axis)
    return image


def normalise(
    image: np.ndarray, factor: float | None = 1 / 255, mean_std: tuple[Sequence[float], Sequence[float]] | None = None
) -> np.ndarray:
    """float32 [3, height, width]: the image times ``factor``, less the mean, divided by the standard deviation of each channel."""
    values = image.astype(np.float32) if factor is None else (image.astype(np.float64) * factor).astype(np.float32)
    if mean_std is not None:
        mean, std = (np.array(channel, dtype=np.float32) for channel in mean_std)
        values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def example_images(count: int, size: int | tuple[int, int], seed: int) -> np.ndarray:
    """Seeded uint8 [count, height, width, 3] that costs what a photograph costs: a smooth colour gradient with noise. ``size`` is
    (height, width) or the side of a square."""
    height, width = (size, size) if isinstance(size, int) else size
    generators = row_generators(seed, count)
    corners = np.stack([generator.random((3, 2, 2)) for generator in generators])
    rows, columns = (np.stack([1 - ramp, ramp]) for ramp in (np.linspace(0, 1, height), np.linspace(0, 1, width)))
    smooth = np.einsum("bcij,iy,jx->bcyx", corners, rows, columns)
    noisy = smooth + np.stack([generator.normal(0, 0.1, smooth.shape[1:]) for generator in generators])
    return np.clip(np.round(noisy * 255), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def check_scores(*outputs: np.ndarray) -> None:
    """UserError where a model gave what has no order, as one does whose half precision overflowed or whose weights are broken."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(
            "The model gave scores that are not numbers (NaN or infinite): run it at float32, or check its weights."
        )


def ranked(logits: np.ndarray, labels: list[str] | Mapping[int, str], count: int | None = None) -> list[dict[str, Any]]:
    """Labels with their softmax scores, best first, at most ``count``. ``logits`` is [labels]; UserError where one is not a number."""
    check_scores(logits)
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponentials / exponentials.sum()
    return [
        {"label": labels[index], "score": float(scores[index])} for index in np.argsort(-scores, kind="stable")[:count].tolist()
    ]
