"""Scene cuts, and what is taken for one: flashes, pans, changes of light."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.arrays import Image
from preprocess.decode.video import read_frames
from preprocess.faces.cuts import FLASH_FRAMES, Change, CutFinder

HEIGHT, WIDTH = 288, 512


def _scene(number: int) -> Image:
    """A picture of smooth shapes, other ones for each number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colour, waves = rng.integers(30, 220, 3), rng.uniform(0.005, 0.02, (3, 2))
    picture = [colour[c] + 35 * np.sin(waves[c, 0] * x + waves[c, 1] * y + c) for c in range(3)]
    return np.clip(np.stack(picture, axis=-1), 0, 255).astype(np.uint8)


def _changes(pictures: list[Image]) -> dict[int, Change]:
    finder = CutFinder()
    found = [finder(picture) for picture in pictures]
    return {index: change for index, change in enumerate(found) if change is not Change.NONE}


def test_a_new_scene_is_a_cut() -> None:
    assert _changes([_scene(1)] * 5 + [_scene(4)] * 9 + [_scene(5)] * 5) == {5: Change.CUT, 14: Change.CUT}


@pytest.mark.parametrize("frames", range(1, FLASH_FRAMES + 1))
@pytest.mark.parametrize("shade", [0, 255])
def test_a_flash_is_taken_back(frames: int, shade: int) -> None:
    flash = [np.full_like(_scene(1), shade)] * frames
    found = _changes([_scene(1)] * 5 + flash + [_scene(1)] * 9)
    assert found == {5: Change.CUT, 5 + frames: Change.BACK}


def test_a_scene_that_comes_back_later_is_another_one() -> None:
    between = [_scene(4)] * (FLASH_FRAMES + 1)
    found = _changes([_scene(1)] * 5 + between + [_scene(1)] * 9)
    assert found == {5: Change.CUT, 6 + FLASH_FRAMES: Change.CUT}


@pytest.mark.parametrize(
    "move",
    [
        lambda picture, index: np.roll(picture, 25 * index, axis=1),
        lambda picture, index: np.clip(picture * (1 + 0.04 * index), 0, 255).astype(np.uint8),
    ],
    ids=["fast pan", "brighter"],
)
def test_motion_and_light_are_no_cut(move: Callable[[Image, int], Image]) -> None:
    assert _changes([move(_scene(1), index) for index in range(12)]) == {}


@pytest.mark.parametrize(("name", "cuts"), [("face_noface", [72, 73]), ("noface_face", [96, 168]), ("single_face", [])])
def test_cuts_of_real_videos(samples: dict[str, Path], name: str, cuts: list[int]) -> None:
    # The first two are two clips with a black frame after the man's; the other one's title flies in, but cuts nothing.
    found = _changes([frame.rgb for frame in read_frames(samples[name])])
    assert sorted(found) == cuts
    assert set(found.values()) <= {Change.CUT}
