"""Tracking on drawn faces: what the detector and the mesh would say is scripted, frame by frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from preprocess.arrays import Floats, Image
from preprocess.faces.detect import Detection
from preprocess.faces.geometry import box_of
from preprocess.faces.mesh import POINTS, MeshFit, Roi
from preprocess.faces.track import Track
from preprocess.faces.tracker import MAX_MISSES, Tracker

Place = tuple[float, float, float]
Script = Callable[[int], Mapping[str, Place]]


def _box(place: Place) -> Floats:
    x, y, side = place
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


@dataclass
class Stage:
    """Faces (centre and side by name) as functions of the frame; some unseen by one of the two networks."""

    faces: Script
    undetected: Callable[[int, str], bool] = lambda index, name: False
    unmeshed: Callable[[int, str], bool] = lambda index, name: False
    scene: Callable[[int], int] = lambda index: 0
    looks: list[int] = field(default_factory=list)
    _index: int = 0

    def detect(self, rgb: Image) -> list[Detection]:
        self.looks.append(self._index)
        return [
            Detection(_box(place), 0.9, np.array([[place[0] - 5, place[1]], [place[0] + 5, place[1]]], np.float32))
            for name, place in self.faces(self._index).items()
            if not self.undetected(self._index, name)
        ]

    def fit(self, rgb: Image, roi: Roi) -> MeshFit:
        near = [
            place
            for name, place in self.faces(self._index).items()
            if not self.unmeshed(self._index, name) and abs(place[0] - roi.x) + abs(place[1] - roi.y) < place[2] / 2
        ]
        x, y, side = near[0] if near else (roi.x, roi.y, roi.side / 1.5)
        angles = np.linspace(0, 2 * np.pi, POINTS)
        points = np.stack([x + side / 2 * np.cos(angles), y + side / 2 * np.sin(angles)], axis=1)
        return MeshFit(points.astype(np.float32), 0.9 if near else 0.1, (0.0, 0.0))

    def run(self, frames: int, every: int = 10) -> list[Track]:
        tracker = Tracker(self.detect, self.fit, every)
        for self._index in range(frames):
            shade = np.zeros((90, 160, 3), np.uint8)
            shade[:] = (40, 60, 80) if self.scene(self._index) == 0 else (220, 180, 30)
            tracker.update(self._index, shade)
        return tracker.finish()


def _spans(tracks: list[Track]) -> list[tuple[int, int, int]]:
    return [(track.id, track.start, track.end) for track in tracks]


def test_one_face_is_one_track_and_the_detector_looks_rarely() -> None:
    stage = Stage(lambda index: {"a": (50 + index, 50, 40)})
    tracks = stage.run(60)
    assert _spans(tracks) == [(0, 0, 60)]
    assert stage.looks == list(range(0, 60, 10))
    centres = [(box_of(seen.points)[0] + box_of(seen.points)[2]) / 2 for seen in tracks[0].observations]
    np.testing.assert_allclose(centres, 50 + np.arange(60), atol=0.1)


def test_several_faces_are_numbered_from_left_to_right() -> None:
    faces = {"b": (120.0, 40.0, 30.0), "a": (40.0, 40.0, 30.0)}
    tracks = Stage(lambda index: faces).run(20)
    assert _spans(tracks) == [(0, 0, 20), (1, 0, 20)]
    assert tracks[0].last_box()[0] < tracks[1].last_box()[0]


def test_a_face_that_leaves_ends_and_one_that_enters_begins_at_a_look() -> None:
    tracks = Stage(
        lambda index: {**({"a": (40, 40, 30)} if index < 25 else {}), **({"b": (120, 40, 30)} if index > 32 else {})}
    ).run(60)
    assert _spans(tracks) == [(0, 0, 25), (1, 40, 60)]


def test_a_short_miss_is_survived_and_a_long_one_is_not() -> None:
    def missing(first: int, last: int) -> Callable[[int, str], bool]:
        return lambda index, name: first <= index < last

    short, long = missing(23, 23 + MAX_MISSES), missing(23, 24 + MAX_MISSES)
    face: Script = lambda index: {"a": (60, 50, 40)}  # noqa: E731
    assert _spans(Stage(face, undetected=short, unmeshed=short).run(50)) == [(0, 0, 50)]
    assert _spans(Stage(face, undetected=long, unmeshed=long).run(50)) == [(0, 0, 23), (1, 30, 50)]


def test_where_the_mesh_fails_the_detector_carries_on() -> None:
    tracks = Stage(lambda index: {"a": (60, 50, 40)}, unmeshed=lambda index, name: 12 <= index < 30).run(50)
    assert _spans(tracks) == [(0, 0, 50)]
    unmeshed = [index for index, seen in enumerate(tracks[0].observations) if seen.points is None]
    assert unmeshed == list(range(12, 30))
    assert all(tracks[0].observations[index].detected is not None for index in unmeshed)


def test_a_mesh_that_drifts_onto_something_else_is_cut_back() -> None:
    tracks = Stage(lambda index: {"a": (60, 50, 40)}, undetected=lambda index, name: index > 20).run(100)
    assert _spans(tracks) == [(0, 0, 21)]


def test_a_scene_cut_ends_every_track() -> None:
    tracks = Stage(lambda index: {"a": (60, 50, 40)}, scene=lambda index: int(index >= 33)).run(60)
    assert _spans(tracks) == [(0, 0, 33), (1, 33, 60)]


def test_two_tracks_never_follow_the_same_face() -> None:
    # b walks into a and vanishes behind it.
    tracks = Stage(lambda index: {"a": (60, 50, 40), **({"b": (140 - 2 * index, 50, 40)} if index < 36 else {})}).run(
        60
    )
    assert _spans(tracks)[0] == (0, 0, 60)
    assert len(tracks) == 2
    assert tracks[1].end < 45


@pytest.mark.parametrize("older", ["behind", "front"])
def test_faces_that_look_alike_are_told_apart_by_their_motion(older: str) -> None:
    def cross(index: int) -> dict[str, Place]:
        # The mesh and the detector see only the first of two that overlap.
        faces: dict[str, Place] = {"front": (150.0 - 4 * index, 50, 24), "behind": (10.0 + 4 * index, 50, 24)}
        if index < 4:
            return {older: faces[older]}
        return faces

    hidden = range(14, 22)
    tracks = Stage(cross, undetected=lambda index, name: name == "behind" and index in hidden).run(36, every=2)

    [front] = [track for track in tracks if track.end == 36 and track.last_box()[0] < 80]
    assert front.start == (0 if older == "front" else 4)
    before, after = sorted((track for track in tracks if track is not front), key=lambda track: track.start)
    assert before.end <= 18 < after.start
    assert before.id == after.id != front.id
    for track, step in ((front, -4), (before, 4), (after, 4)):
        lefts = [seen.box[0] for seen in track.observations if seen.box is not None]
        np.testing.assert_allclose(np.diff(lefts), step, atol=0.1)


def test_faces_that_no_mesh_fits_are_counted_and_begin_no_track() -> None:
    stage = Stage(lambda index: {"a": (60, 50, 40)}, unmeshed=lambda index, name: True)
    tracker = Tracker(stage.detect, stage.fit, 10)
    for index in range(21):
        tracker.update(index, np.zeros((90, 160, 3), np.uint8))
    assert tracker.finish() == []
    assert tracker.unfitted == 3
