"""Which frames of videos a classifier learns from, and which it is judged on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.features import WindowSpec
from eval.questions import Video
from eval.sequences import FrameSequence, read_clip
from pipeline.storage import Store
from train.hashing import START, sample_hash, stream


@dataclass(frozen=True)
class Place:
    """Frames of a face of a video; `index_T` counts from the begin of the sequence."""

    sequence: FrameSequence
    index_T: NDArray[np.int64]

    def read(self, store: Store) -> NDArray[np.uint8]:
        """The frames: (T, S, S, 3) RGB."""
        return read_clip(store, self.sequence, self.index_T)


def random_clip(video: Video, spec: WindowSpec, seed: int, epoch: int) -> Place:
    """A clip from anywhere in a video, the same one for the same seed and epoch.

    Every start is as likely as any other, over all faces of the video; a shorter face repeats its last frame.
    """
    starts = np.cumsum([_starts(sequence, spec) for sequence in video.sequences])
    drawn = stream(sample_hash(seed, epoch, video.name), START) % int(starts[-1])
    number = int(np.searchsorted(starts, drawn, side="right"))
    sequence = video.sequences[number]
    return _clip(sequence, spec, drawn - int(starts[number]) + _starts(sequence, spec))


def centre_clip(video: Video, spec: WindowSpec) -> Place:
    """The middle of the face that is seen longest."""
    sequence = max(video.sequences, key=lambda sequence: sequence.frames)
    return _clip(sequence, spec, _starts(sequence, spec) // 2)


def all_windows(video: Video, spec: WindowSpec) -> list[Place]:
    """Every window of a video, as features are made of."""
    return [Place(sequence, index_T) for sequence in video.sequences for index_T in spec.plan(sequence.frames)]


def _starts(sequence: FrameSequence, spec: WindowSpec) -> int:
    return max(1, sequence.frames - (spec.clip - 1) * spec.rate)


def _clip(sequence: FrameSequence, spec: WindowSpec, start: int) -> Place:
    index_T = start + spec.rate * np.arange(spec.clip, dtype=np.int64)
    return Place(sequence, np.minimum(index_T, sequence.frames - 1))
