"""Cuts a track into samples: runs of consecutive frames that share no frame."""

import hashlib
from dataclasses import dataclass

from pipeline.config.schema import PreprocessConfig
from preprocess.corpora import Source


@dataclass(frozen=True)
class Run:
    """Frames `start` to `start + frames` of a video, all of one split."""

    start: int
    frames: int
    split: str


@dataclass(frozen=True)
class Division:
    """How tracks are divided: the last `holdout` share of their frames is split 'val', the rest is `split`."""

    split: str = "train"
    holdout: float = 0.0


def division_of(source: Source, cfg: PreprocessConfig) -> Division:
    """What an official list says of a source; without one, what the configuration holds out."""
    return Division(source.split) if source.split else Division(holdout=held_out_share(source.identity, cfg))


def held_out_share(identity: str, cfg: PreprocessConfig) -> float:
    """Share of a track that is held out: all of it for held-out identities, so that no person is in both splits.

    The choice depends on nothing but the name, so it stays when a corpus grows.
    """
    place = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big") / 2**64
    return 1.0 if place < cfg.holdout_identities else cfg.holdout


def cut_track(start: int, frames: int, *, clip: int, minimum: int, division: Division) -> tuple[list[Run], int]:
    """Runs of `clip` frames.

    Args:
        start: index of the track's first frame.
        frames: length of the track.
        clip: frames of a full sample.
        minimum: a shorter remainder is dropped.
        division: which of its frames go into which split.

    Returns:
        The runs in order (none straddles the border between the splits), and how many remainders were dropped.
    """
    held_out = round(frames * division.holdout)
    runs: list[Run] = []
    short = 0
    kept = frames - held_out
    for split, first, length in ((division.split, start, kept), ("val", start + kept, held_out)):
        for offset in range(0, length, clip):
            size = min(clip, length - offset)
            if size >= minimum:
                runs.append(Run(first + offset, size, split))
            else:
                short += 1
    return runs, short
