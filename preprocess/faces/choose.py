"""Chooses the runs of the found tracks that become samples: filters, each with a counted reason, and copies.

All filters but the length of a track judge run by run, so that a long track with a bad part loses that part alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.schema import PreprocessConfig
from pipeline.text import plural
from preprocess.arrays import Floats
from preprocess.faces.boxes import smooth_squares, track_boxes
from preprocess.faces.duplicates import Entry, near_duplicates
from preprocess.faces.find import Found, Stats
from preprocess.faces.fingerprint import places
from preprocess.faces.runs import Division, Run, cut_track
from preprocess.faces.track import Observation, Track
from preprocess.quarantine import BadSource, Dropped, Reason

MESHED = 0.5
"""Share of a run's frames that the mesh must fit; drawings and things that pass for a face stay below."""


@dataclass(frozen=True)
class Chosen:
    """A run that becomes a sample.

    Attributes:
        squares: (n, 3) centre and side of the face in each frame of the track, smoothed.
        phash: fingerprints of the run as hexadecimal digits; see `duplicates.Entry`.
    """

    track: Track
    squares: Floats
    run: Run
    phash: tuple[str, ...]


def plan_runs(found: Found, cfg: PreprocessConfig, division: Division, stats: Stats) -> list[Chosen]:
    """Which runs of which tracks become samples, ordered by start, then by track.

    Raises:
        BadSource: none does.
    """
    chosen: list[Chosen] = []
    for track in found.tracks:
        if len(track.observations) < cfg.min_track * found.fps:
            stats.drop("brief", 1)
            continue
        squares = smooth_squares(track_boxes(track), found.fps)
        runs, short = cut_track(
            track.start, len(squares), clip=cfg.clip_frames, minimum=cfg.min_frames, division=division
        )
        stats.drop("short", short)
        for run in runs:
            rows = slice(run.start - track.start, run.start - track.start + run.frames)
            if reason := fault_of(track.observations[rows], squares[rows], cfg):
                stats.drop(reason, 1)
            else:
                chosen.append(Chosen(track, squares, run, _phash(track, run)))
    if not chosen:
        raise _refusal(found, cfg, stats)
    chosen.sort(key=lambda item: (item.run.start, item.track.id))
    if cfg.near_duplicates:
        chosen = _without_copies(chosen, stats)
    stats.tracks += len({item.track.id for item in chosen})
    return chosen


def fault_of(seen: Sequence[Observation], squares: Floats, cfg: PreprocessConfig) -> Dropped | None:
    """The first filter that frames of a track do not pass: a median over them is out of bounds."""
    if cfg.uses_networks and sum(observation.points is not None for observation in seen) < MESHED * len(seen):
        return "no-mesh"
    if float(np.median(squares[:, 2])) < cfg.min_face:
        return "small"
    sharp = [observation.sharpness for observation in seen if observation.sharpness is not None]
    if sharp and float(np.median(sharp)) < cfg.min_sharpness:
        return "blurred"
    poses = np.abs([observation.pose for observation in seen if observation.pose is not None])
    for axis, most in enumerate((cfg.max_yaw, cfg.max_pitch)):
        if most is not None and len(poses) and float(np.median(poses[:, axis])) > most:
            return "pose"
    return None


def _phash(track: Track, run: Run) -> tuple[str, ...]:
    prints = (track.at(index).print for index in places(run.start, run.frames))
    return tuple("" if bits is None else bits.hex() for bits in prints)


def _without_copies(chosen: list[Chosen], stats: Stats) -> list[Chosen]:
    entries = (Entry(str(number), str(item.track.id), item.run.start, item.phash) for number, item in enumerate(chosen))
    copies = near_duplicates(entries)
    stats.drop("duplicate", len(copies))
    return [item for number, item in enumerate(chosen) if str(number) not in copies]


def _refusal(found: Found, cfg: PreprocessConfig, stats: Stats) -> BadSource:
    """The reason of a source without a run: of all that held, the one of the run that came furthest."""
    tracks = f"{plural(len(found.tracks), 'face track')} in {plural(found.frames, 'frame')}"
    turns = " and ".join(f"preprocess.{key}={getattr(cfg, key)}" for key in ("max_yaw", "max_pitch"))
    reasons: dict[Dropped, tuple[Reason, str]] = {
        "pose": ("pose", f"turned away more than {turns} degrees"),
        "blurred": ("blurred", f"less sharp than preprocess.min_sharpness={cfg.min_sharpness}"),
        "small": ("too-small", f"smaller than preprocess.min_face={cfg.min_face} pixels"),
        "no-mesh": ("no-face", "none that the face mesh fits"),
        "short": ("too-short", f"none lasts preprocess.min_frames={cfg.min_frames} in one split"),
        "brief": ("too-short", f"none lasts preprocess.min_track={cfg.min_track} seconds"),
    }
    reason, detail = next(text for dropped, text in reasons.items() if stats.dropped.get(dropped))
    return BadSource(reason, f"{tracks}, {detail}")
