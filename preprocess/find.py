"""First pass over a span of a video: finds the face tracks, and chooses the runs of them that become samples.

Boxes are smoothed over whole tracks, so crops can only be made once a track is complete (`preprocess.cutout`);
decoding twice keeps the memory independent of the video's length.
"""

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats
from preprocess.boxes import smooth_squares, track_boxes
from preprocess.clip import Clip
from preprocess.models import Networks
from preprocess.quarantine import BadSource
from preprocess.runs import Run, cut_track
from preprocess.track import Track, Tracker

MESHED = 0.5
"""Share of a track's frames that the mesh must fit; drawings and things that pass for a face stay below."""


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

    def drop(self, reason: str, count: int) -> None:
        """Counts what was left out, by reason."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count


def find_faces(clip: Clip, cfg: PreprocessConfig, networks: Networks) -> Found:
    """First pass: all tracks of a clip.

    Raises:
        BadSource: unreadable, damaged, or without a face.
    """
    fps = cfg.fps or clip.rate()
    tracker = Tracker(networks.detector, networks.mesh, cfg.detect_every)
    frames, first, last = 0, 0.0, 0.0
    for frame in clip.frames(cfg.fps):
        tracker.update(frame.index, frame.rgb)
        first, last = (frame.time if not frames else first), frame.time
        frames += 1
    tracks = tracker.finish()
    if not tracks:
        raise BadSource("no-face", f"no face in {frames} frames")
    return Found(fps=fps, frames=frames, seconds=round(last - first + 1 / fps, 3), tracks=tracks)


def plan_runs(found: Found, cfg: PreprocessConfig, holdout: float, stats: Stats) -> list[tuple[Track, Floats, Run]]:
    """Which runs of which tracks become samples, with the squares (n, 3) of their track.

    Raises:
        BadSource: none does.
    """
    chosen: list[tuple[Track, Floats, Run]] = []
    for track in found.tracks:
        if sum(seen.points is not None for seen in track.observations) < MESHED * len(track.observations):
            stats.drop("no-mesh", 1)
            continue
        squares = smooth_squares(track_boxes(track), found.fps)
        if float(np.median(squares[:, 2])) < cfg.min_face:
            stats.drop("small", 1)
            continue
        runs, short = cut_track(
            track.start, len(squares), clip=cfg.clip_frames, minimum=cfg.min_frames, holdout=holdout
        )
        stats.drop("short", short)
        stats.tracks += bool(runs)
        chosen += [(track, squares, run) for run in runs]
    if not chosen:
        _refuse(found, cfg, stats)
    return chosen


def _refuse(found: Found, cfg: PreprocessConfig, stats: Stats) -> NoReturn:
    tracks = f"{len(found.tracks)} face track(s) in {found.frames} frames"
    if stats.dropped.get("short"):
        raise BadSource("too-short", f"{tracks}, none lasts preprocess.min_frames={cfg.min_frames} in one split")
    if stats.dropped.get("small"):
        raise BadSource("too-small", f"{tracks}, smaller than preprocess.min_face={cfg.min_face} pixels")
    raise BadSource("no-face", f"{tracks}, none that the face mesh fits")
