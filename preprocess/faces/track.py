"""Tracks: the same face over consecutive frames of one scene, and what is known of it in each."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from preprocess.arrays import Floats
from preprocess.faces.geometry import box_of, distance

APART = 2.0
"""Distance of two faces, in sides of their boxes, from which on neither head covers the other's face."""
HISTORY = 8
"""Frames that the speed of a face is taken from."""


@dataclass(eq=False)
class Observation:
    """What is known of a face in one frame: `detected` and `points` both None when it was missed.

    Attributes:
        detected: box (4,) of the detector, in frames where it looked.
        points: mesh (468, 2).
        pose: yaw and pitch in degrees, with the mesh.
        sharpness: see `quality.sharpness`; in frames that have a fingerprint.
        print: see `fingerprint.fingerprint`; every few frames.
    """

    detected: Floats | None = None
    points: Floats | None = None
    pose: tuple[float, float] | None = None
    sharpness: float | None = None
    print: bytes | None = None

    @property
    def seen(self) -> bool:
        """Whether anything was found in this frame."""
        return self.detected is not None or self.points is not None

    @property
    def box(self) -> Floats | None:
        """Box (4,) of the mesh, else of the detector."""
        return self.detected if self._mesh_box is None else self._mesh_box

    @cached_property
    def _mesh_box(self) -> Floats | None:
        return None if self.points is None else box_of(self.points)


@dataclass(frozen=True)
class Sight:
    """A face as it was in one frame; `apart` from all others, so that none covered it."""

    index: int
    box: Floats
    speed: Floats
    look: Floats
    apart: bool

    def box_at(self, index: int) -> Floats:
        """Where its box (4,) would be in another frame."""
        box: Floats = self.box + np.tile(self.speed, 2) * (index - self.index)
        return box


@dataclass(eq=False)
class Track:
    """A face from frame `start` on, an observation for each consecutive frame.

    Attributes:
        scene: index of the first frame of its scene.
        look: `portrait.features` where the mesh fitted last.
        sure: the same where the detector agreed last: in fast motion the mesh alone lags behind.
        first_clear, clear: its first and last sight apart from other faces; its first sight if it never was.
        hidden: it ended behind another face, and may come out again.
        id: number of the face in its video; parts of a track that was hidden in between share it.
    """

    start: int
    observations: list[Observation] = field(default_factory=list)
    scene: int = 0
    look: Floats | None = None
    sure: Floats | None = None
    first_clear: Sight | None = None
    clear: Sight | None = None
    hidden: bool = False
    id: int = -1

    @property
    def end(self) -> int:
        """Index after the last frame."""
        return self.start + len(self.observations)

    def at(self, index: int) -> Observation:
        """What is known in a frame of the video."""
        return self.observations[index - self.start]

    def last_box(self) -> Floats:
        """Box where the face was last seen."""
        for observation in reversed(self.observations):
            if (box := observation.box) is not None:
                return box
        raise ValueError("a track without any observation")

    def expected_box(self) -> Floats:
        """Where the face is in the last frame: its box, or after a miss where its motion would have taken it."""
        misses = self.misses()
        box: Floats = self.last_box() + np.tile(self.speed(self.end - misses), 2) * misses
        return box

    def speed(self, end: int) -> Floats:
        """Pixels a frame (2,) that the centre moved by, over the last frames before `end`."""
        last = end - self.start
        recent = self.observations[max(0, last - HISTORY - 1) : last]
        centres = [(row, (box[:2] + box[2:]) / 2) for row, seen in enumerate(recent) if (box := seen.box) is not None]
        if len(centres) < 2:
            return np.zeros(2)
        (first, a), (final, b) = centres[0], centres[-1]
        return np.asarray((b - a) / (final - first))

    def last_detected(self) -> int:
        """Index of the last frame where the detector agreed."""
        for back, observation in enumerate(reversed(self.observations), start=1):
            if observation.detected is not None:
                return self.end - back
        return self.start

    def misses(self) -> int:
        """Frames at the end without any sight of the face."""
        count = 0
        for observation in reversed(self.observations):
            if observation.seen:
                break
            count += 1
        return count

    def cut_back(self, end: int) -> None:
        """Forgets the frames from `end` on, and misses before it; the first frame stays."""
        del self.observations[max(1, end - self.start) :]
        misses = self.misses()
        if misses:
            del self.observations[-misses:]

    def near(self, others: Iterable["Track"]) -> bool:
        """Whether one of other faces is, in the last frame, so close that one of the two may cover the other."""
        return any(distance(self.expected_box(), other.expected_box()) < APART for other in others)

    def note_clear(self, others: Iterable["Track"]) -> None:
        """Remembers the face as it is in the last frame, unless another one is near; the first sight in any case."""
        box = self.observations[-1].box
        if box is None or self.look is None:
            return
        apart = not self.near(others)
        if self.clear is None or apart:
            self.clear = Sight(self.end - 1, box, self.speed(self.end), self.look, apart)
        if self.first_clear is None or not self.first_clear.apart:
            self.first_clear = self.clear
