"""First pass over a span of a video: finds the face tracks.

Boxes are smoothed over whole tracks, so crops can only be made once a track is complete (`preprocess.cutout`);
decoding twice keeps the memory independent of the video's length.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.config.schema import PreprocessConfig
from pipeline.text import plural
from preprocess.arrays import Image
from preprocess.corpora.clip import Clip
from preprocess.faces.fingerprint import STEP, fingerprint
from preprocess.faces.portrait import portrait
from preprocess.faces.quality import sharpness
from preprocess.faces.track import Observation, Track
from preprocess.faces.tracker import Detect, Fit, Tracker
from preprocess.quarantine import BadSource, Dropped


@dataclass
class Found:
    """What the first pass knows of a video."""

    fps: float
    frames: int
    seconds: float
    tracks: list[Track]


@dataclass
class Stats:
    """Counts of a source for its record in the unit's manifest."""

    tracks: int = 0
    samples: int = 0
    unparsed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: Dropped, count: int) -> None:
        """Counts what was left out, by reason."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count


def find_faces(clip: Clip, cfg: PreprocessConfig, detect: Detect, fit: Fit) -> Found:
    """First pass: all tracks of a clip.

    Args:
        clip: what to look through.
        cfg: rates and filters.
        detect, fit: the networks that the tracker asks.

    Raises:
        BadSource: unreadable, damaged, or without a face.
    """
    tracker = Tracker(detect, fit, cfg.detect_every)
    found = _seen(clip, cfg, tracker.update)
    found.tracks = tracker.finish()
    if not found.tracks:
        some = plural(tracker.unfitted, "detection")
        unfitted = f", but {some} that the face mesh does not fit" if tracker.unfitted else ""
        raise BadSource("no-face", f"no face in {plural(found.frames, 'frame')}{unfitted}")
    return found


def whole_pictures(clip: Clip, cfg: PreprocessConfig) -> Found:
    """First pass over a clip that shows nothing but one face: a track over all frames, whose box is the picture.

    Raises:
        BadSource: unreadable or damaged.
    """
    track = Track(start=0, id=0)

    def look(index: int, rgb: Image) -> None:
        box = np.array([0, 0, rgb.shape[1], rgb.shape[0]], np.float32)
        seen = Observation(detected=box)
        if index % STEP == 0:
            picture = portrait(rgb, box)
            seen.sharpness, seen.print = sharpness(picture), fingerprint(picture)
        track.observations.append(seen)

    found = _seen(clip, cfg, look)
    found.tracks = [track]
    return found


def _seen(clip: Clip, cfg: PreprocessConfig, look: Callable[[int, Image], None]) -> Found:
    """Shows every frame to `look`; what is known then, still without tracks."""
    fps = cfg.fps or clip.rate()
    frames, first, last = 0, 0.0, 0.0
    for frame in clip.frames(cfg.fps):
        look(frame.index, frame.rgb)
        first, last = (frame.time if not frames else first), frame.time
        frames += 1
    return Found(fps=fps, frames=frames, seconds=round(last - first + 1 / fps, 3), tracks=[])
