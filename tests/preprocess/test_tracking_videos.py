"""Tracking real faces in composed videos: who is where in each frame is known."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pytest
from composites import SIDE, Actor, Frames, Place, compose, head_of, room, whom

from preprocess.faces.track import Track
from preprocess.faces.tracker import Tracker
from preprocess.models import Networks

pytestmark = pytest.mark.slow

Heads = dict[str, Frames]
HEIGHT, WIDTH = 270, 640


@pytest.fixture(scope="module")
def heads(samples: dict[str, Path], networks: Networks) -> Heads:
    """Three people; 'double' is the second one mirrored."""
    found = {
        "woman": head_of(samples["WolfgangLanger_Pexels"], networks.detector, first=200),
        "man": head_of(samples["single_face"], networks.detector),
        "driver": head_of(samples["carphone_pristine"], networks.detector),
    }
    return {**found, "double": found["man"][:, :, ::-1]}


@pytest.fixture
def track(networks: Networks) -> Callable[[Iterable[Frames]], list[Track]]:
    """All tracks of some frames."""

    def run(frames: Iterable[Frames]) -> list[Track]:
        tracker = Tracker(networks.detector, networks.mesh, detect_every=10)
        for index, rgb in enumerate(frames):
            tracker.update(index, rgb)
        return tracker.finish()

    return run


def _still(x: float, first: int = 0, last: int = 10**6) -> Callable[[int], Place | None]:
    return lambda index: (x, HEIGHT / 2) if first <= index < last else None


def _spans(tracks: list[Track]) -> list[tuple[int, int, int]]:
    return [(track.id, track.start, track.end) for track in tracks]


@pytest.mark.parametrize(
    ("behind", "front", "speed"),
    [("woman", "man", 3), ("man", "woman", 9), ("driver", "man", 9), ("man", "double", 5), ("woman", "man", 16)],
)
def test_people_who_cross_keep_their_tracks(heads: Heads, track, behind: str, front: str, speed: int) -> None:
    actors = [
        Actor("behind", heads[behind], lambda index: (70 + speed * index, HEIGHT / 2)),
        Actor("front", heads[front], lambda index: (570 - speed * index, HEIGHT / 2)),
    ]
    frames = 500 // speed
    tracks = track(compose(actors, frames, room()))

    meeting = range((WIDTH - 140 - SIDE // 2) // (2 * speed), (WIDTH - 140 + SIDE // 2) // (2 * speed) + 1)
    for one in tracks:
        names = {
            name
            for index, name in zip(range(one.start, one.end), whom(one, actors), strict=True)
            if index not in meeting and name != "?"
        }
        assert len(names) <= 1, f"track {one.start} to {one.end} shows both"
    # The one in front is one track from end to end; the other one has the same number on both sides.
    [whole] = [one for one in tracks if (one.start, one.end) == (0, frames)]
    assert set(whom(whole, actors)[-5:]) == {"front"}
    [before] = [one for one in tracks if one.start == 0 and one is not whole]
    [after] = [one for one in tracks if one.end == frames and one is not whole]
    assert set(whom(before, actors)[:5]) == set(whom(after, actors)[-5:]) == {"behind"}
    assert before.id == after.id != whole.id


def test_missed_frames_are_survived(heads: Heads, track) -> None:
    def covered() -> Iterator[Frames]:
        for index, picture in enumerate(compose([Actor("man", heads["man"], _still(300))], 60, room())):
            if 22 <= index < 26:
                picture[40:230, 200:400] = (60, 90, 60)
            yield picture

    tracks = track(covered())
    assert _spans(tracks) == [(0, 0, 60)]
    assert [index for index in range(60) if not tracks[0].at(index).seen] == [22, 23, 24, 25]


def test_a_hard_cut_between_two_people_in_one_place_ends_the_track(heads: Heads, track) -> None:
    # Same room, same place, same size: no frame thumbnail tells, only the face does.
    actors = [Actor("man", heads["man"], _still(320, 0, 33)), Actor("woman", heads["woman"], _still(320, 33))]
    tracks = track(compose(actors, 66, room()))
    assert [[name for name, _ in groupby(whom(one, actors))] for one in tracks] == [["man"], ["woman"]]
    assert _spans(tracks) == [(0, 0, 33), (1, 33, 66)]


@pytest.mark.parametrize("shade", [255, 0])
def test_a_flash_does_not_end_a_track_and_a_cut_does(heads: Heads, track, shade: int) -> None:
    def film() -> Iterator[Frames]:
        actors = [Actor("man", heads["man"], _still(320))]
        for index, picture in enumerate(compose(actors, 70, room())):
            if index in (21, 22):
                picture[:] = shade
            # A new scene with the same man in the same place.
            yield picture if index < 45 else (picture * (0.3, 0.5, 0.9)).astype(np.uint8)

    tracks = track(film())
    assert _spans(tracks) == [(0, 0, 45), (1, 45, 70)]


def test_a_fast_pan_keeps_the_track(heads: Heads, track) -> None:
    wide = np.concatenate([room(width=WIDTH)] * 3, axis=1)
    actors = [Actor("man", heads["man"], lambda index: (300 + 10 * index, HEIGHT / 2))]

    def pan() -> Iterator[Frames]:
        # The camera is still, then passes over the man by 40 pixels a frame (0.4 sides of his face), then is still.
        for index, picture in enumerate(compose(actors, 40, wide)):
            left = 10 * index + 30 * int(np.clip(index - 15, 0, 8)) - 120
            yield np.roll(picture, -left, axis=1)[:, :WIDTH]

    assert _spans(track(pan())) == [(0, 0, 40)]


def test_a_face_that_leaves_and_comes_back_is_a_new_track(heads: Heads, track) -> None:
    def place(index: int) -> Place:
        return 320 + (8 * index if index < 80 else 8 * (160 - index)), HEIGHT / 2

    tracks = track(compose([Actor("man", heads["man"], place)], 150, room()))
    assert [one.id for one in tracks] == [0, 1], _spans(tracks)
    assert 30 < tracks[0].end < 60
    assert 100 < tracks[1].start < 135


def test_a_picture_of_a_face_turned_upside_down_or_squeezed_is_no_worse_than_none(heads: Heads, track) -> None:
    thin = np.stack([cv2.resize(head, (40, SIDE)) for head in heads["man"]])
    frames = []
    for head in thin[:20]:
        picture = room()
        picture[30:230, 300:340] = head
        frames.append(picture)
    assert all(one.observations[0].points is not None for one in track(frames))
