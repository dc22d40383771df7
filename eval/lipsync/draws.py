"""What the networks of lip synchronisation learn from: clips drawn by chance, the same ones for the same seed and step.

Shapes: T frames, S×S pixels, M×C a window of the spectrogram, N sync windows of a clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from eval.lipsync.faces import FaceReader, Image, TalkingFace
from eval.lipsync.mel import FRAMES, Mel, frame_windows, mel_windows
from pipeline.workers import Workers, work_ahead

MOMENTS = 8
"""Moments of a face that a sync network compares with each other."""

_AHEAD = 2  # steps whose clips are being read


@dataclass(frozen=True)
class Moment:
    """Five frames of a face, and the sound of them."""

    face: TalkingFace
    first: int

    def read(self, reader: FaceReader) -> tuple[Image, Mel]:
        """Frames (5, S, S, 3) and a window (M, C)."""
        frames = reader.frames(self.face, self.first + np.arange(FRAMES))
        return frames, mel_windows(reader.mel(self.face), np.array([self.first]))[0]


@dataclass(frozen=True)
class Clip:
    """T frames of a face, and as many others of it, which begin anew where the face ends."""

    face: TalkingFace
    first: int
    reference: int
    frames: int

    def read(self, reader: FaceReader) -> tuple[Image, Image, Mel, Mel]:
        """Frames and references (T, S, S, 3), the sound around each frame (T, M, C) and of each five (N, M, C)."""
        index, mel = np.arange(self.frames, dtype=np.int64), reader.mel(self.face)
        target = reader.frames(self.face, self.first + index)
        reference = reader.frames(self.face, (self.reference + index) % self.face.frames)
        fives = self.first + index[: self.frames - FRAMES + 1 : FRAMES]
        return target, reference, frame_windows(mel, self.first + index), mel_windows(mel, fives)


def draw_moments(faces: Sequence[TalkingFace], count: int, seed: int, step: int) -> list[Moment]:
    """Moments of a step, `MOMENTS` different ones of each face: the first ones of one face, then of the next."""
    dice = np.random.default_rng((seed, step))
    drawn = []
    for _ in range(count // MOMENTS):
        face = faces[int(dice.integers(len(faces)))]
        firsts = dice.permutation(face.frames - FRAMES + 1)[:MOMENTS]
        drawn += [Moment(face, first) for first in firsts.tolist()]
    return drawn


def draw_clips(faces: Sequence[TalkingFace], count: int, frames: int, seed: int, step: int) -> list[Clip]:
    """Clips of a step, whose references have no frame in common with them.

    Args:
        faces: of two clips' frames or more.
        count: how many clips.
        frames: of a clip.
        seed, step: of the draw.
    """
    dice = np.random.default_rng((seed, step))
    drawn = []
    for _ in range(count):
        face = faces[int(dice.integers(len(faces)))]
        first = int(dice.integers(face.frames - frames + 1))
        away = int(dice.integers(frames, face.frames - frames + 1))
        drawn.append(Clip(face, first, (first + away) % face.frames, frames))
    return drawn


Given_co = TypeVar("Given_co", covariant=True)


class _Drawn(Protocol, Generic[Given_co]):
    def read(self, reader: FaceReader) -> Given_co:
        """What was drawn."""
        ...


def read_steps(
    pool: Workers, reader: FaceReader, steps: Iterator[Sequence[_Drawn[Given_co]]]
) -> Iterator[list[Given_co]]:
    """What was drawn for each step, while the next ones are being read."""
    return work_ahead(pool, lambda drawn: drawn.read(reader), steps, depth=_AHEAD)


def to_faces(frames_BTSS3: Sequence[Image], device: torch.device) -> Tensor:
    """RGB bytes of clips as (B, T, 3, S, S) in [0, 1]."""
    stacked = torch.from_numpy(np.stack(frames_BTSS3)).to(device)
    return stacked.permute(0, 1, 4, 2, 3).float().div_(255)


def to_mel(windows: Sequence[Mel], device: torch.device) -> Tensor:
    """Windows of the spectrogram of clips as one tensor."""
    return torch.from_numpy(np.stack(windows)).to(device)
