"""Images against Pillow and against transformers' own processors, and what a user sees for one that cannot be used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import image_transforms
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models import clip, detr, vit
from ipfs_accelerate_py.models.llava_next import LlavaNext
from ipfs_accelerate_py.models.processing.image import (
    as_image,
    centre_crop,
    example_images,
    pixel_values,
    resize,
    resized,
)

PHOTO = example_images(1, (40, 60), seed=5)[0]
SIZES = [(60, 80), (80, 60), (224, 224), (225, 333), (400, 31), (32, 32)]


def png(image: PIL.Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def test_every_kind_of_image_is_the_same_image(tmp_path: Path) -> None:
    """A path, a str, bytes, a Pillow image and an array of the same picture give the same pixels."""
    picture = PIL.Image.fromarray(PHOTO)
    path = tmp_path / "photo.png"
    path.write_bytes(png(picture))
    for value in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), picture, PHOTO):
        image = as_image(value)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, PHOTO)


def test_grey_becomes_rgb() -> None:
    """Rank 2, one channel and Pillow's mode L give three equal channels."""
    grey = PHOTO[:, :, 0]
    for value in (grey, grey[:, :, None], PIL.Image.fromarray(grey)):
        np.testing.assert_array_equal(as_image(value), np.repeat(grey[:, :, None], 3, axis=2))


def test_transparency_is_laid_on_white_as_transformers_does() -> None:
    """RGBA, a grey image with alpha and a palette with a transparent colour, from Pillow and from an array."""
    alpha = np.linspace(0, 255, PHOTO.shape[0] * PHOTO.shape[1]).reshape(PHOTO.shape[:2]).astype(np.uint8)
    rgba = PIL.Image.fromarray(np.dstack([PHOTO, alpha]))
    palette = PIL.Image.open(io.BytesIO(png(PIL.Image.fromarray(PHOTO).quantize(8), transparency=3)))
    for picture in (rgba, rgba.convert("LA"), palette):
        np.testing.assert_array_equal(as_image(picture), image_transforms.convert_to_rgb(picture, return_numpy=True))
    expected = image_transforms.convert_to_rgb(np.asarray(rgba), return_numpy=True)
    assert np.abs(as_image(np.asarray(rgba)).astype(int) - expected).max() <= 1  # Pillow rounds the blend, NumPy computes it
    assert (as_image(np.zeros((4, 4, 4), np.uint8)) == 255).all()


def test_a_photograph_is_turned_upright() -> None:
    """The EXIF orientation of a file, as a telephone writes it, is applied."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    np.testing.assert_array_equal(as_image(png(PIL.Image.fromarray(PHOTO), exif=exif)), np.rot90(PHOTO, -1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "zero size: 0 x 5 x 3"),
        (PIL.Image.new("RGB", (0, 7)), "zero size: 0 x 7"),
        (np.full((4, 4, 3), np.nan), "not numbers"),
        (np.full((4, 4, 3), 0.5), "uint8, 0 to 255, not float64"),
        (np.zeros((4, 4, 3), bool), "uint8, 0 to 255, not bool"),
        (np.zeros((2, 4, 4, 3), np.uint8), "A batch is a list of images"),
        (np.zeros(4, np.uint8), "2 or 3 dimensions"),
        (np.zeros((3, 8, 8), np.uint8), "Move the channels to the end"),
        (np.zeros((8, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (PIL.Image.new("I;16", (4, 4)), "more than 8 bits"),
        (PIL.Image.new("F", (4, 4)), "more than 8 bits"),
        ("/no/such/photo.jpg", "no image file '/no/such/photo.jpg'"),
        ("/", "no image file '/'"),
        ("a" * 300, "no image file 'aaa"),
        ("~nobody-has-this-name/a.png", "no image file '~nobody"),
        (b"", "is empty"),
        (b"not an image at all", "not an image that Pillow can read"),
        (png(PIL.Image.fromarray(PHOTO))[:500], "damaged or truncated"),
        (42, "not int"),
        (None, "not NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_an_image_is_one_sentence(value: Any, message: str) -> None:
    """Each unusable image raises UserError that says what is wrong with it."""
    with pytest.raises(UserError, match=message):
        as_image(value)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "photo.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"photo\.png' cannot be read: Permission denied"):
        as_image(tmp_path / "photo.png")


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more pixels than Pillow allows is an error of the user's, not a traceback."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="too large"):
        as_image(png(PIL.Image.fromarray(PHOTO)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (vit.image_settings(224), ViTImageProcessorPil()),
        (clip.image_settings(224), CLIPImageProcessorPil()),
        (detr.image_settings((96, 128)), DetrImageProcessorPil(size={"height": 96, "width": 128}, do_pad=False)),
    ],
    ids=["vit", "clip", "detr"],
)
def test_pixels_equal_transformers(settings: dict[str, Any], theirs: Any, size: tuple[int, int]) -> None:
    """Our settings of each class give the bits of transformers' processor with its published defaults."""
    image = example_images(1, size, seed=sum(size))[0]
    expected = theirs(image, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(pixel_values([image], settings), expected)


def test_published_detr_size_is_its_processors_of_a_photograph() -> None:
    """DETR's own processor makes 800 x 1066 of 480 x 640, so for that aspect ratio the fixed size changes nothing."""
    image = example_images(1, (480, 640), seed=1)[0]
    theirs = DetrImageProcessorPil()(image, return_tensors="np")
    np.testing.assert_array_equal(pixel_values([image], detr.image_settings(detr.PUBLISHED_SIZE)), theirs["pixel_values"])
    assert theirs["pixel_mask"].all()


def test_older_settings_with_one_number() -> None:
    """``size: 224`` of older files is a square for ViT, and for CLIP the shortest edge."""
    assert resized(PHOTO, 20) == (20, 20)
    assert resized(PHOTO, 20, square=False) == (20, 30)
    older = {**clip.image_settings(224), "size": 32, "crop_size": 32}
    np.testing.assert_array_equal(pixel_values([PHOTO], older), pixel_values([PHOTO], clip.image_settings(32)))


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 900), st.integers(1, 900))
def test_edges_equal_transformers(height: int, width: int, shortest: int, longest: int) -> None:
    """The size by shortest and longest edge is transformers' for every aspect ratio."""
    image = np.zeros((height, width, 3), np.uint8)
    alone = image_transforms.get_resize_output_image_size(
        image, shortest, default_to_square=False, input_data_format="channels_last"
    )
    assert resized(image, {"shortest_edge": shortest}) == alone
    both = image_transforms.get_size_with_aspect_ratio((height, width), shortest, longest)
    assert resized(image, {"shortest_edge": shortest, "longest_edge": longest}) == both


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_crop_equals_transformers(height: int, width: int, crop_height: int, crop_width: int) -> None:
    """Also where the crop is larger than the image, which gets a black border, and where the difference is odd."""
    image = np.arange(1, height * width * 3 + 1).astype(np.uint8).reshape(height, width, 3)
    expected = image_transforms.center_crop(image, (crop_height, crop_width), input_data_format="channels_last")
    np.testing.assert_array_equal(centre_crop(image, (crop_height, crop_width)), expected)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("size", [{}, None, "x", 0, -3, True, 224.0, [224, 224], {"max_height": 32}, {"height": 32}, {"shortest_edge": "32"}]),
        ("crop_size", [None, {"shortest_edge": 32}, {"height": 10**9, "width": 32}]),
        ("resample", [None, 7, "bicubic"]),
        ("rescale_factor", [None, "1/255", float("nan")]),
        ("image_mean", [None, 0.5, [0.5, 0.5], [0.5, 0.5, float("inf")], [1e39] * 3]),
        ("image_std", [None, [0.5] * 4, [0, 0.5, 0.5], [0.5, 0.5, "x"], [1e-45] * 3]),
        ("do_resize", [None, "no"]),
    ],
)
def test_settings_that_cannot_be_used_are_named(name: str, values: list[Any]) -> None:
    """Neither a traceback nor pixels that are no numbers; llava_next, whose tiles transformers cuts, included."""
    llava_next = LlavaNext()
    config = llava_next.config(llava_next.sizes["tiny"].config)
    for value in values:
        with pytest.raises(UserError, match=f"The processing setting {name} is"):
            pixel_values([PHOTO], {**clip.image_settings(32), name: value})
        with pytest.raises(UserError, match=f"The processing setting {name} is"):
            llava_next.pixels(config, [PHOTO], {**llava_next.settings(config), name: value})
    with pytest.raises(UserError, match="The processing setting crop_size is"):
        pixel_values([PHOTO], {**vit.image_settings(32), "do_center_crop": True})


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    """An image of one pixel's width would be gigabytes once its short edge is the model's."""
    sliver = np.zeros((200_000, 1, 3), np.uint8)
    with pytest.raises(UserError, match="too narrow"):
        pixel_values([sliver], clip.image_settings(224))
    with pytest.raises(UserError, match="too narrow"):
        resize(sliver, resized(sliver, {"shortest_edge": 800, "longest_edge": 1333}))


def test_settings_that_do_not_fit_the_model() -> None:
    """A folder whose processing makes another size than its model takes is found before the model runs."""
    with pytest.raises(UserError, match="64 x 64 pixels, and the model takes 32 x 32"):
        pixel_values([PHOTO], vit.image_settings(64), (32, 32))
    with pytest.raises(UserError, match="60 x 40"):
        pixel_values([PHOTO[:, :50], PHOTO], {**vit.image_settings(64), "do_resize": False})


def test_example_images_are_seeded_photographs() -> None:
    """The same seed gives the same pixels, another gives others; values spread over the range as a photograph's do."""
    images = example_images(2, (24, 36), seed=3)
    assert images.shape == (2, 24, 36, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, example_images(2, (24, 36), seed=3))
    assert (images != example_images(2, (24, 36), seed=4)).mean() > 0.9
    assert images.std() > 30
