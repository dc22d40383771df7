"""Finds the tracks of a video.

The detector looks every few frames; in between the mesh follows each face, and the detector is asked again at once
when the mesh loses one. docs/faces.md says why, and gives the measurements behind the numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from preprocess.arrays import Floats, Image
from preprocess.faces.crossing import LIKE, SAME_FACE, loser, number, part
from preprocess.faces.cuts import FLASH_FRAMES, Change, CutFinder
from preprocess.faces.detect import Detection
from preprocess.faces.fingerprint import STEP, fingerprint
from preprocess.faces.geometry import box_of, distance, iou, larger_side
from preprocess.faces.mesh import MeshFit, Roi, roi_of_box, roi_of_points
from preprocess.faces.portrait import features, likeness, portrait
from preprocess.faces.quality import sharpness
from preprocess.faces.track import Observation, Track

PRESENT = 0.5
DUPLICATE = 0.6
MAX_MISSES = 5
# A lost face is looked for within so many sides of its box, if its size is at least this share of what it was.
JUMP, RESIZED = 1.0, 0.7
# A mesh that overlaps less with its last box or the detected one is left behind by a fast face, and is fitted anew.
LAGGING = 0.6
# A mesh can settle on something that is no face: the detector must agree once in so many looks.
UNCONFIRMED_LOOKS = 3


@dataclass
class _Aside:
    """Tracks of the scene before a cut, kept as long as the cut may have been a flash."""

    cut: int
    scene: int
    tracks: list[Track]


Detect = Callable[[Image], list[Detection]]
"""The faces of a frame."""
Fit = Callable[[Image, Roi], MeshFit]
"""The mesh of the face that a region of a frame shows."""


class Tracker:
    """Follows every face of a video; feed it the frames in order, then `finish`."""

    def __init__(
        self,
        detect: Detect,
        fit: Fit,
        detect_every: int,
    ) -> None:
        self._detect, self._fit, self._every = detect, fit, detect_every
        self._cut = CutFinder()
        self._scene = 0
        self._active: list[Track] = []
        self._aside: _Aside | None = None
        self._done: list[Track] = []
        self.unfitted = 0
        """Detections that no mesh fitted: profiles, masks, drawings. They begin no track."""

    def update(self, index: int, rgb: Image) -> None:
        """Takes the next frame; indices are consecutive."""
        change = self._cut(rgb)
        self._change_scene(change, index)
        for track in self._active:
            track.observations.append(self._follow(track, rgb, index))
        self._part()
        lost = any(not track.observations[-1].seen for track in self._active)
        if index % self._every == 0 or change is not Change.NONE or lost:
            self._look(index, rgb)
            self._part()
        self._end([track for track in self._active if self._over(track)])
        for track in self._active:
            track.note_clear(other for other in self._active if other is not track)

    def finish(self) -> list[Track]:
        """All tracks, numbered by start, then by place from left to right."""
        self._end(self._active)
        self._forget_aside()
        return number(self._done)

    def _change_scene(self, change: Change, index: int) -> None:
        if self._aside is not None and index - self._aside.cut > FLASH_FRAMES:
            self._forget_aside()
        if change is Change.NONE:
            return
        if self._aside is None:
            self._aside, self._active = _Aside(index, self._scene, self._active), []
        else:
            self._end(self._active)
        self._scene = index
        if change is Change.BACK:
            self._active, self._scene, self._aside = self._aside.tracks, self._aside.scene, None
            for track in self._active:
                track.observations += [Observation() for _ in range(index - track.end)]

    def _forget_aside(self) -> None:
        if self._aside is not None:
            self._done += [_ended(track) for track in self._aside.tracks]
        self._aside = None

    def _follow(self, track: Track, rgb: Image, index: int) -> Observation:
        before = track.observations[-1].points
        if before is None:
            return Observation()
        fit = self._fit(rgb, roi_of_points(before))
        if fit.presence >= PRESENT and iou(box_of(fit.points), box_of(before)) < LAGGING:
            # It is drawn towards a face at the border of its view; looking there it sees it whole.
            fit = self._fit(rgb, roi_of_points(fit.points))
        if fit.presence < PRESENT or iou(box_of(fit.points), box_of(before)) < SAME_FACE:
            return Observation()
        return self._recognized(track, fit, rgb, index) or Observation()

    def _recognized(self, track: Track, fit: MeshFit, rgb: Image, index: int) -> Observation | None:
        """The mesh as an observation of a track, unless it shows another face than the track had last."""
        picture = portrait(rgb, box_of(fit.points))
        look = features(picture)
        known = [before for before in (track.look, track.sure) if before is not None]
        if known and max(likeness(before, look) for before in known) < LIKE:
            return None
        track.look = look
        seen = Observation(points=fit.points, pose=fit.pose)
        if index % STEP == 0:
            seen.sharpness, seen.print = sharpness(picture), fingerprint(picture)
        return seen

    def _look(self, index: int, rgb: Image) -> None:
        faces = self._detect(rgb)
        pairs = sorted(
            (-_nearness(track, face.box), f, t) for f, face in enumerate(faces) for t, track in enumerate(self._active)
        )
        free_faces, free_tracks = set(range(len(faces))), set(range(len(self._active)))
        for away, f, t in pairs:
            if away == 0 or f not in free_faces or t not in free_tracks:
                continue
            if self._confirm(self._active[t], faces[f], rgb, index, moved=-away < SAME_FACE):
                free_faces.discard(f)
                free_tracks.discard(t)
        for f in sorted(free_faces):
            seen = [box for track in self._active if (box := track.observations[-1].box) is not None]
            if all(iou(faces[f].box, box) < SAME_FACE for box in seen):
                self._begin(index, faces[f], rgb)

    def _confirm(self, track: Track, face: Detection, rgb: Image, index: int, moved: bool) -> bool:
        """Adds a detection to a track's last frame; False when it is another face, or after a jump may be."""
        box = track.observations[-1].box
        if box is None or track.observations[-1].points is None or iou(box, face.box) < LAGGING:
            fit = self._fit_face(face, rgb)
            if fit is None and moved:
                return False
            if fit is not None:
                seen = self._recognized(track, fit, rgb, index)
                if seen is None:
                    return False
                track.observations[-1] = seen
        track.observations[-1].detected, track.sure = face.box, track.look
        return True

    def _begin(self, index: int, face: Detection, rgb: Image) -> None:
        fit = self._fit_face(face, rgb)
        if fit is None:
            self.unfitted += 1
            return
        track = Track(start=index, scene=self._scene)
        seen = self._recognized(track, fit, rgb, index)
        assert seen is not None  # noqa: S101 -- a new track has no look yet
        seen.detected, track.sure = face.box, track.look
        track.observations.append(seen)
        self._active.append(track)

    def _fit_face(self, face: Detection, rgb: Image) -> MeshFit | None:
        fit = self._fit(rgb, roi_of_box(face.box, face.eyes))
        good = fit.presence >= PRESENT and iou(box_of(fit.points), face.box) >= SAME_FACE
        return fit if good else None

    def _over(self, track: Track) -> bool:
        if track.end - track.last_detected() > UNCONFIRMED_LOOKS * self._every:
            track.cut_back(track.last_detected() + 1)
            return True
        if track.misses() > MAX_MISSES:
            track.hidden = track.near(other for other in self._active if other is not track)
            return True
        return False

    def _part(self) -> None:
        """Ends one of two tracks that follow the same face, until no two do."""
        while pair := self._collision():
            lost = loser(*pair)
            part(lost, next(track for track in pair if track is not lost))
            self._end([lost])

    def _collision(self) -> tuple[Track, Track] | None:
        boxes: list[tuple[Track, Floats]] = [
            (track, box) for track in self._active if (box := track.observations[-1].box) is not None
        ]
        for position, (later, box) in enumerate(boxes):
            for earlier, other in boxes[:position]:
                if iou(box, other) > DUPLICATE:
                    return earlier, later
        return None

    def _end(self, tracks: list[Track]) -> None:
        for track in list(tracks):
            self._active.remove(track)
            self._done.append(_ended(track))


def _nearness(track: Track, box: Floats) -> float:
    """Overlap of a detected box with a track; less than `SAME_FACE` for a lost face that may have jumped there."""
    expected = track.expected_box()
    overlap = max(iou(box, expected), iou(box, track.last_box()))
    if overlap >= SAME_FACE:
        return overlap
    sizes = sorted((larger_side(box), larger_side(expected)))
    if track.observations[-1].seen or sizes[0] < RESIZED * sizes[1]:
        return 0.0
    return SAME_FACE * max(0.0, 1 - distance(box, expected) / JUMP)


def _ended(track: Track) -> Track:
    track.cut_back(track.end)
    return track
