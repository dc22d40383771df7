"""Second pass over a span of a video: cuts the chosen faces out and parses them.

Faces are parsed in batches of `preprocess.parse_batch` in the order of their frames, whatever else runs: the batches of
a unit are the same each time, and so are its bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.corpora.clip import Clip
from preprocess.dataset.sample import SampleBuilder, Style
from preprocess.decode.frame import Frame
from preprocess.faces.choose import Chosen, plan_runs
from preprocess.faces.crop import crop_matrix, extract
from preprocess.faces.find import Found, Stats
from preprocess.faces.runs import Run, division_of
from preprocess.faces.track import Track
from preprocess.models import Networks
from preprocess.parsers.base import Parser, View
from preprocess.quarantine import BadSource


@dataclass(eq=False)
class _Job:
    """One run of one track, being filled in the second pass."""

    track: Track
    squares: Floats
    builder: SampleBuilder

    @property
    def end(self) -> int:
        """Index after the last frame."""
        return self.builder.run.start + self.builder.run.frames


@dataclass(frozen=True)
class _Cut:
    """A face of one frame with the context around it; `points` of its mesh are in pixels of `picture`."""

    job: _Job
    picture: Image
    points: Floats | None
    square: Floats
    time: float


def begin_samples(
    clip: Clip, found: Found, stats: Stats, cfg: PreprocessConfig, parsed_by: Mapping[str, Any]
) -> list[tuple[Chosen, SampleBuilder]]:
    """The runs that become samples, by start, each with its sample that has no frames yet.

    Args:
        clip, found: what was looked through, and what the first pass knows of it.
        stats: counts what is left out.
        cfg: filters and sizes.
        parsed_by: `parser` and `models` as they stand in every sample: its name, and hashes of network files.

    Raises:
        BadSource: no run is long enough, or passes the filters.
    """
    head = {
        "source": clip.source.name,
        "identity": clip.source.identity,
        "span": list(clip.span) if clip.span else None,
        "fps": round(found.fps, 4),
        "size": cfg.size,
        "margin": cfg.margin,
        "detector": cfg.detector,
        **parsed_by,
        "labels": dict(clip.source.labels),
    }
    style = Style(cfg.size, cfg.patch, cfg.jpeg_quality, cfg.label_maps)
    chosen = plan_runs(found, cfg, division_of(clip.source, cfg), stats)
    return [(item, SampleBuilder(item.run, style, {**head, **_own_head(clip, item)})) for item in chosen]


def make_samples(
    clip: Clip, found: Found, stats: Stats, cfg: PreprocessConfig, networks: Networks
) -> Iterator[SampleBuilder]:
    """Second pass: filled samples in the order in which they are complete.

    Raises:
        BadSource: no run is long enough, or the video is damaged.
    """
    parsed_by = {"parser": networks.parser.name, "models": dict(networks.models)}
    begun = begin_samples(clip, found, stats, cfg, parsed_by)
    waiting = [_Job(item.track, item.squares, builder) for item, builder in begun]
    view = View.of(cfg)
    active: list[_Job] = []
    batch: list[_Cut] = []
    for frame in clip.frames(cfg.fps):
        while waiting and waiting[0].builder.run.start <= frame.index:
            active.append(waiting.pop(0))
        for job in active:
            batch.append(_cut(job, frame, view, cfg.margin))
            if len(batch) == cfg.parse_batch:
                yield from _parsed(batch, view, networks.parser, stats)
                batch = []
        active = [job for job in active if job.end > frame.index + 1]
        if not waiting and not active:
            break
    if waiting or active:
        raise BadSource("damaged", "it gave fewer frames when it was read again: it changed meanwhile")
    yield from _parsed(batch, view, networks.parser, stats)


def _own_head(clip: Clip, item: Chosen) -> dict[str, Any]:
    return {"key": _key(clip, item.track, item.run), "track": item.track.id, "phash": list(item.phash)}


def _key(clip: Clip, track: Track, run: Run) -> str:
    return f"{clip.key}-t{track.id:02d}-{run.start:06d}"


def _cut(job: _Job, frame: Frame, view: View, margin: float) -> _Cut:
    row = frame.index - job.track.start
    square = job.squares[row].astype(np.float64)
    wide = square * (1, 1, 1 + 2 * margin)
    points = job.track.observations[row].points
    if points is not None:
        matrix = crop_matrix(wide, view.size, view.pad)
        points = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return _Cut(job, extract(frame.rgb, wide, view.size, view.pad), points, square, frame.time)


def _parsed(batch: list[_Cut], view: View, parser: Parser, stats: Stats) -> Iterator[SampleBuilder]:
    """Labels a batch, adds each face to its sample, and gives the samples that are full then."""
    known = [(cut.picture, cut.points) for cut in batch if cut.points is not None]
    labels = iter(parser([picture for picture, _ in known], [points for _, points in known]))
    for cut in batch:
        builder = cut.job.builder
        builder.add(view.inside(cut.picture), None if cut.points is None else next(labels), cut.square, cut.time)
        if builder.full:
            stats.samples += 1
            stats.unparsed += builder.unparsed
            yield builder
