"""One span of one video to samples: a pass that finds the faces, and a pass that cuts them out.

Boxes are smoothed over whole tracks, so crops can only be made once a track is complete; decoding twice keeps the
memory independent of the video's length.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.boxes import smooth_squares, track_boxes
from preprocess.corpora import Source
from preprocess.crop import crop_matrix, extract
from preprocess.models import Networks
from preprocess.quarantine import BadSource
from preprocess.runs import Run, cut_track, held_out_share
from preprocess.sample import SampleBuilder, Style
from preprocess.track import Track, Tracker
from preprocess.video import Frame, Span, probe, read_frames

CONTEXT = 2.0
"""Side of the picture that is parsed, in sides of the face: hair and shoulders help the networks."""

MESHED = 0.5
"""Share of a track's frames that the mesh must fit; drawings and things that pass for a face stay below."""


@dataclass(frozen=True)
class Clip:
    """A span of a video to work on; `key` begins the keys of its samples and is unique in the dataset."""

    file: Path
    span: Span | None
    source: Source
    key: str


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


@dataclass(eq=False)
class _Job:
    """One run of one track, being filled in the second pass."""

    track: Track
    squares: Floats
    builder: SampleBuilder


def find_faces(clip: Clip, cfg: PreprocessConfig, networks: Networks) -> Found:
    """First pass: all tracks of a clip.

    Raises:
        BadSource: unreadable, damaged, or without a face.
    """
    fps = cfg.fps or probe(clip.file).fps
    tracker = Tracker(networks.detector, networks.mesh, cfg.detect_every)
    frames, first, last = 0, 0.0, 0.0
    for frame in read_frames(clip.file, clip.span, cfg.fps):
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


def make_samples(
    clip: Clip, found: Found, stats: Stats, cfg: PreprocessConfig, networks: Networks
) -> Iterator[SampleBuilder]:
    """Second pass: filled samples in the order in which they are complete.

    Raises:
        BadSource: no run is long enough, or the video is damaged.
    """
    head = {
        "source": clip.source.name,
        "identity": clip.source.identity,
        "span": list(clip.span) if clip.span else None,
        "fps": round(found.fps, 4),
        "size": cfg.size,
        "margin": cfg.margin,
        "detector": cfg.detector,
        "parser": networks.parser.name,
        "models": dict(networks.models),
        "labels": {},
    }
    style = Style(cfg.size, cfg.patch, cfg.jpeg_quality, cfg.label_maps)
    chosen = plan_runs(found, cfg, held_out_share(clip.source.identity, cfg), stats)
    waiting = [
        _Job(track, squares, SampleBuilder(run, style, {**head, "key": _key(clip, track, run), "track": track.id}))
        for track, squares, run in sorted(chosen, key=lambda item: (item[2].start, item[0].id))
    ]
    active: list[_Job] = []
    for frame in read_frames(clip.file, clip.span, cfg.fps):
        while waiting and waiting[0].builder.run.start <= frame.index:
            active.append(waiting.pop(0))
        for job in active:
            _add_frame(job, frame, cfg, networks)
        for job in [job for job in active if job.builder.run.start + job.builder.run.frames == frame.index + 1]:
            active.remove(job)
            stats.samples += 1
            stats.unparsed += job.builder.unparsed
            yield job.builder
        if not waiting and not active:
            return


def _key(clip: Clip, track: Track, run: Run) -> str:
    return f"{clip.key}-t{track.id:02d}-{run.start:06d}"


def _add_frame(job: _Job, frame: Frame, cfg: PreprocessConfig, networks: Networks) -> None:
    row = frame.index - job.track.start
    square = job.squares[row].astype(np.float64)
    wide = square * (1, 1, 1 + 2 * cfg.margin)
    pad = max(0, round(cfg.size * (CONTEXT / (1 + 2 * cfg.margin) - 1) / 2))
    picture = extract(frame.rgb, wide, cfg.size, pad)
    inside = slice(pad, pad + cfg.size)
    labels: Image | None = None
    points = job.track.observations[row].points
    if points is not None:
        matrix = crop_matrix(wide, cfg.size, pad)
        labels = networks.parser(picture, (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))
    job.builder.add(picture[inside, inside], None if labels is None else labels[inside, inside], square, frame.time)
