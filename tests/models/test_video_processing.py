"""Videos as a person gives them: sampling, batches, and what cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.processing.video import as_frames, example_videos, sampled, videos


def numbered(count: int, height: int = 6, width: int = 8) -> np.ndarray:
    """uint8 [count, height, width, 3] whose frame i has the value i everywhere."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)).copy()


def test_all_frames_are_kept_in_order() -> None:
    """A video of exactly the model's number of frames passes as it is, without a note."""
    frames, notes = as_frames(numbered(8), 8)
    assert [int(frame[0, 0, 0]) for frame in frames] == list(range(8))
    assert notes == ()


@pytest.mark.parametrize(("given", "count", "expected"), [(16, 4, [2, 6, 10, 14]), (5, 2, [1, 3]), (300, 3, [50, 150, 250])])
def test_sampling_takes_the_middle_of_equal_segments(given: int, count: int, expected: list[int]) -> None:
    """Of more frames those in the middle of equal segments are taken, and the note says how many of how many."""
    assert sampled(given, count) == expected
    frames, notes = as_frames(np.zeros((given, 2, 2, 3), np.uint8), count, number=3)
    assert len(frames) == count
    assert notes == (f"Video 3: {count} of its {given} frames were used, at equal distances.",)


def test_too_few_frames_are_refused_unless_repetition_is_asked_for() -> None:
    """The sentence says both numbers; with ``repeat`` frames return in order and a note says so."""
    with pytest.raises(UserError, match="Video 2 has 3 frames, and the model takes 8"):
        as_frames(numbered(3), 8, number=2)
    frames, notes = as_frames(numbered(3), 8, repeat=True)
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert "some were repeated" in notes[0]


def test_frames_may_be_images_of_any_kind() -> None:
    """A list of Pillow images and arrays gives what the array of the same frames gives."""
    array = numbered(4)
    mixed = [Image.fromarray(array[0]), array[1], Image.fromarray(array[2]), array[3]]
    np.testing.assert_array_equal(np.stack(as_frames(mixed, 4).frames), array)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "Video 1 has no frames"),
        (np.zeros((0, 4, 4, 3), np.uint8), "Video 1 has no frames"),
        ("film.mp4", "Video 1 has to be a list of images or an array with 4 dimensions .* not a str"),
        (np.zeros((4, 4, 3), np.uint8), "not 3 dimensions"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 0, 3), np.uint8)], "Video 1, frame 2: .*zero size"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "different sizes: 4 x 4 and 6 x 4 pixels"),
        (np.full((2, 4, 4, 3), np.nan), "Video 1, frame 1: .*not numbers"),
    ],
)
def test_bad_videos_are_one_sentence(video: object, message: str) -> None:
    """Each mistake is named, with the video and the frame where it is."""
    with pytest.raises(UserError, match=message):
        as_frames(video, 2)


def test_one_video_or_a_batch() -> None:
    """A list of frames and an array of them are one video; a list of videos and an array with five dimensions are a batch."""
    one = numbered(4)
    assert len(videos(one)) == 1
    assert len(videos(list(one))) == 1
    assert len(videos([one, list(one)])) == 2
    assert len(videos(np.stack([one, one, one]))) == 3
    assert videos([]) == []


def test_the_example_moves_and_is_seeded() -> None:
    """Consecutive frames of the example differ, videos differ, and the same seed gives the same ones."""
    example = example_videos(2, 4, 16, seed=1)
    assert example.shape == (2, 4, 16, 16, 3)
    assert example.dtype == np.uint8
    assert all((example[0, i] != example[0, i + 1]).any() for i in range(3))
    assert (example[0] != example[1]).any()
    np.testing.assert_array_equal(example, example_videos(2, 4, 16, seed=1))
    assert (example != example_videos(2, 4, 16, seed=2)).any()
