"""Videos: from what a person gives to the number of frames that a model takes, each an image as in ``image.py``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import UserError
from ...lazy_numpy import np
from .image import as_image

EXAMPLE_MOTION = 0.5  # part of the picture's width that the example's content moves in the whole video


class Frames(NamedTuple):
    """``frames`` uint8 [height, width, 3] in the order of time; ``notes`` says what was left out or repeated."""

    frames: list[np.ndarray]
    notes: tuple[str, ...]


def videos(value: Any) -> list[Any]:
    """The batch of what was given: one video (its frames, or an array of them) is a batch of one."""
    if isinstance(value, np.ndarray) and value.ndim == 5:
        return list(value)
    if isinstance(value, list | tuple) and all(_is_video(item) for item in value):
        return list(value)
    return [value]


def _is_video(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 4)


def as_frames(video: Any, count: int, number: int = 1, repeat: bool = False) -> Frames:
    """``count`` frames of a video: a list of images (see ``image.as_image``) or uint8 [frames, height, width, 3].

    Of more frames the middle one of each of ``count`` equal segments is taken (Wang et al., 2016, https://arxiv.org/abs/1608.00859).
    Fewer are a UserError, or with ``repeat`` frames are shown more than once, at equal distances. ``number`` names the video in messages.
    """
    if not _is_video(video):
        what = f"{video.ndim} dimensions" if isinstance(video, np.ndarray) else f"a {type(video).__name__}"
        raise UserError(
            f"Video {number} has to be a list of images or an array with 4 dimensions (frames, height, width, channels), not {what}."
        )
    given = len(video)
    if given == 0:
        raise UserError(f"Video {number} has no frames.")
    if given < count and not repeat:
        raise UserError(f"Video {number} has {given} frames, and the model takes {count}: give at least {count}.")
    notes: tuple[str, ...] = ()
    if given > count:
        notes = (f"Video {number}: {count} of its {given} frames were used, at equal distances.",)
    elif given < count:
        notes = (f"Video {number} has {given} frames, and the model takes {count}: some were repeated.",)
    frames = []
    for index in sampled(given, count):
        try:
            frames.append(as_image(video[index]))
        except UserError as wrong:
            raise UserError(f"Video {number}, frame {index + 1}: {wrong}") from wrong
    if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
        described = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise UserError(f"The frames of video {number} have different sizes: {described} pixels.")
    return Frames(frames, notes)


def sampled(given: int, count: int) -> list[int]:
    """Indices of the middle frame of each of ``count`` equal segments of ``given`` frames."""
    return [(2 * segment + 1) * given // (2 * count) for segment in range(count)]


def example_videos(count: int, frames: int, size: int, seed: int) -> np.ndarray:
    """Seeded uint8 [count, frames, size, size, 3]: a window that moves over a larger picture, as a panning camera sees it."""
    from .image import example_images

    shift = int(size * EXAMPLE_MOTION)
    pictures = example_images(count, (size, size + shift), seed)
    starts = np.linspace(0, shift, frames).astype(int)
    return np.stack([pictures[:, :, start : start + size] for start in starts], axis=1)
