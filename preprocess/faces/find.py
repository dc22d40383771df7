"""First pass over a span of a video: finds the face tracks.

Boxes are smoothed over whole tracks, so crops can only be made once a track is complete (`preprocess.cutout`);
decoding twice keeps the memory independent of the video's length.
"""

from dataclasses import dataclass, field

from pipeline.config.schema import PreprocessConfig
from pipeline.text import plural
from preprocess.corpora.clip import Clip
from preprocess.faces.track import Track
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
    fps = cfg.fps or clip.rate()
    tracker = Tracker(detect, fit, cfg.detect_every)
    frames, first, last = 0, 0.0, 0.0
    for frame in clip.frames(cfg.fps):
        tracker.update(frame.index, frame.rgb)
        first, last = (frame.time if not frames else first), frame.time
        frames += 1
    tracks = tracker.finish()
    if not tracks:
        some = plural(tracker.unfitted, "detection")
        unfitted = f", but {some} that the face mesh does not fit" if tracker.unfitted else ""
        raise BadSource("no-face", f"no face in {plural(frames, 'frame')}{unfitted}")
    return Found(fps=fps, frames=frames, seconds=round(last - first + 1 / fps, 3), tracks=tracks)
