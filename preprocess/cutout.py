"""Second pass over a span of a video: cuts the chosen faces out and parses them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.clip import Clip
from preprocess.crop import crop_matrix, extract
from preprocess.find import Found, Stats, plan_runs
from preprocess.models import Networks
from preprocess.runs import Run, held_out_share
from preprocess.sample import SampleBuilder, Style
from preprocess.track import Track
from preprocess.video import Frame

CONTEXT = 2.0
"""Side of the picture that is parsed, in sides of the face: hair and shoulders help the networks."""


@dataclass(eq=False)
class _Job:
    """One run of one track, being filled in the second pass."""

    track: Track
    squares: Floats
    builder: SampleBuilder


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
    for frame in clip.frames(cfg.fps):
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
