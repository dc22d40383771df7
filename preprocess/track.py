"""Tracks: the same face over consecutive frames of one scene.

The detector looks every few frames; in between the mesh follows each face, and the detector is asked again at once
when the mesh loses one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from preprocess.arrays import Floats, Image
from preprocess.cuts import CutFinder
from preprocess.detect import Detection
from preprocess.geometry import box_of, iou
from preprocess.mesh import MeshFit, Roi, roi_of_box, roi_of_points

PRESENT = 0.5
SAME_FACE = 0.3
DUPLICATE = 0.6
MAX_MISSES = 5
# A mesh can settle on something that is no face: the detector must agree once in so many looks.
UNCONFIRMED_LOOKS = 3


@dataclass(eq=False)
class Observation:
    """What is known of a face in one frame: both None when it was missed."""

    detected: Floats | None = None
    points: Floats | None = None

    @property
    def seen(self) -> bool:
        """Whether anything was found in this frame."""
        return self.detected is not None or self.points is not None


@dataclass(eq=False)
class Track:
    """A face from frame `start` on, an observation for each consecutive frame."""

    start: int
    observations: list[Observation] = field(default_factory=list)
    id: int = -1

    @property
    def end(self) -> int:
        """Index after the last frame."""
        return self.start + len(self.observations)

    def last_box(self) -> Floats:
        """Box where the face was last seen."""
        for observation in reversed(self.observations):
            if observation.points is not None:
                return box_of(observation.points)
            if observation.detected is not None:
                return observation.detected
        raise ValueError("a track without any observation")

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


class Tracker:
    """Follows every face of a video; feed it the frames in order, then `finish`."""

    def __init__(
        self,
        detect: Callable[[Image], list[Detection]],
        fit: Callable[[Image, Roi], MeshFit],
        detect_every: int,
    ) -> None:
        self._detect, self._fit, self._every = detect, fit, detect_every
        self._cut = CutFinder()
        self._active: list[Track] = []
        self._done: list[Track] = []

    def update(self, index: int, rgb: Image) -> None:
        """Takes the next frame; indices are consecutive."""
        cut = self._cut(rgb)
        if cut:
            self._end(list(self._active))
        for track in self._active:
            track.observations.append(self._follow(track, rgb))
        lost = any(not track.observations[-1].seen for track in self._active)
        if index % self._every == 0 or cut or lost:
            self._look(index, rgb)
        self._end([track for track in self._active if self._over(track)])
        self._end(self._duplicates())

    def finish(self) -> list[Track]:
        """All tracks, numbered by start, then by place from left to right."""
        self._end(list(self._active))
        ordered = sorted(self._done, key=lambda track: (track.start, *_first_box(track).tolist()))
        for number, track in enumerate(ordered):
            track.id = number
        return ordered

    def _follow(self, track: Track, rgb: Image) -> Observation:
        before = track.observations[-1].points
        if before is None:
            return Observation()
        fit = self._fit(rgb, roi_of_points(before))
        good = fit.presence >= PRESENT and iou(box_of(fit.points), box_of(before)) >= SAME_FACE
        return Observation(points=fit.points) if good else Observation()

    def _look(self, index: int, rgb: Image) -> None:
        faces = self._detect(rgb)
        pairs = sorted(
            (
                (iou(face.box, track.last_box()), f, t)
                for f, face in enumerate(faces)
                for t, track in self._enumerated()
            ),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        free_faces, free_tracks = set(range(len(faces))), set(range(len(self._active)))
        for overlap, f, t in pairs:
            if overlap >= SAME_FACE and f in free_faces and t in free_tracks:
                free_faces.discard(f)
                free_tracks.discard(t)
                self._confirm(self._active[t].observations[-1], faces[f], rgb)
        for f in sorted(free_faces):
            if all(iou(faces[f].box, track.last_box()) < SAME_FACE for track in self._active):
                self._begin(index, faces[f], rgb)

    def _enumerated(self) -> list[tuple[int, Track]]:
        return list(enumerate(self._active))

    def _confirm(self, observation: Observation, face: Detection, rgb: Image) -> None:
        observation.detected = face.box
        if observation.points is None:
            observation.points = self._fit_face(face, rgb)

    def _begin(self, index: int, face: Detection, rgb: Image) -> None:
        points = self._fit_face(face, rgb)
        if points is not None:
            self._active.append(Track(start=index, observations=[Observation(face.box, points)]))

    def _fit_face(self, face: Detection, rgb: Image) -> Floats | None:
        fit = self._fit(rgb, roi_of_box(face.box, face.eyes))
        good = fit.presence >= PRESENT and iou(box_of(fit.points), face.box) >= SAME_FACE
        return fit.points if good else None

    def _over(self, track: Track) -> bool:
        unconfirmed = track.end - track.last_detected() > UNCONFIRMED_LOOKS * self._every
        if unconfirmed:
            del track.observations[track.last_detected() + 1 - track.start :]
        return unconfirmed or track.misses() > MAX_MISSES

    def _duplicates(self) -> list[Track]:
        return [
            later
            for position, later in enumerate(self._active)
            if any(iou(later.last_box(), earlier.last_box()) > DUPLICATE for earlier in self._active[:position])
        ]

    def _end(self, tracks: list[Track]) -> None:
        for track in tracks:
            self._active.remove(track)
            misses = track.misses()
            if misses:
                del track.observations[-misses:]
            self._done.append(track)


def _first_box(track: Track) -> Floats:
    detected = track.observations[0].detected
    return track.last_box() if detected is None else detected
