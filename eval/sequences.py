"""Continuous runs of frames in a dataset, and the sliding windows over them.

A dataset stores a track as samples of at most 64 frames; windows must cross their borders, so samples that follow each
other without a gap are read as one sequence.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import Dataset, Sample
from pipeline.errors import MarlinError
from pipeline.storage import Store


@dataclass(frozen=True)
class FrameSequence:
    """Consecutive samples of one track and split, in time order."""

    source: str
    track: int
    split: str
    samples: tuple[Sample, ...]

    @property
    def frames(self) -> int:
        """Frames of all samples together."""
        return sum(sample.frames for sample in self.samples)

    @property
    def label(self) -> str:
        """Name of the track this sequence belongs to, the same in every split."""
        return f"{self.source} · track {self.track}"


def windows(frames: int, clip: int, rate: int, stride: int) -> NDArray[np.int64]:
    """Frame indices of the sliding windows that cover a sequence from its first frame to its last.

    Args:
        frames: length of the sequence.
        clip: frames of a window.
        rate: distance of two frames of a window.
        stride: distance of two window starts; the last window is anchored at the end of the sequence instead.

    Returns:
        (windows, clip). A sequence shorter than a window gives one window that repeats the last frame.

    Raises:
        ValueError: an argument is smaller than 1.
    """
    if min(frames, clip, rate, stride) < 1:
        raise ValueError(f"windows({frames=}, {clip=}, {rate=}, {stride=}): each must be at least 1")
    last_start = max(0, frames - 1 - (clip - 1) * rate)
    starts = [*range(0, last_start, stride), last_start]
    index: NDArray[np.int64] = np.asarray(starts, np.int64)[:, None] + rate * np.arange(clip, dtype=np.int64)
    np.minimum(index, frames - 1, out=index)
    return index


def official_windows(frames: int, clip: int, rate: int, stride: int) -> NDArray[np.int64]:
    """The windows of `marlin-pytorch`, which leaves out the last one where it would end with the video.

    Args:
        frames, clip, rate, stride: as in `windows`. Of ``clip * rate`` frames and fewer the first ones are taken at
            rate 1, and of fewer than ``clip`` the last is repeated.

    Returns:
        (windows, clip).
    """
    if frames <= clip * rate:
        return np.minimum(np.arange(clip, dtype=np.int64), frames - 1)[None]
    starts = np.arange(0, frames - clip * rate, stride, dtype=np.int64)
    index: NDArray[np.int64] = starts[:, None] + rate * np.arange(clip, dtype=np.int64)
    return index


def frame_sequences(samples: Iterable[Sample]) -> list[FrameSequence]:
    """Join samples that continue each other; ordered by source, track, split and time."""

    def track_of(sample: Sample) -> tuple[str, int, str]:
        return sample.source, sample.track, sample.split

    sequences = []
    for (source, track, split), group in groupby(sorted(samples, key=lambda s: (*track_of(s), s.start)), track_of):
        for run in _consecutive(group):
            sequences.append(FrameSequence(source, track, split, tuple(run)))
    return sequences


def _consecutive(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Cut a time-ordered list wherever frames are missing."""
    run: list[Sample] = []
    for sample in samples:
        if run and sample.start != run[-1].start + run[-1].frames:
            yield run
            run = []
        run.append(sample)
    if run:
        yield run


def read_part(store: Store, sample: Sample, part: str) -> bytes:
    """Bytes of one part of a sample.

    Raises:
        MarlinError: the sample has no such part.
    """
    if part not in sample.parts:
        raise MarlinError(f"sample {sample.key} of {store.url} has no part {part!r}: preprocess the dataset again")
    start, length = sample.parts[part]
    return store.read_range(sample.shard, start, length)


def read_frames(store: Store, sample: Sample, numbers: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Decode frames of a sample, by default all, fetched with one range request: (frames, S, S, 3) RGB."""
    spans = [sample.parts[f"{number:03d}.jpg"] for number in (range(sample.frames) if numbers is None else numbers)]
    begin = min(start for start, _ in spans)
    end = max(start + length for start, length in spans)
    blob = store.read_range(sample.shard, begin, end - begin)
    return np.stack([_decode(sample, blob[start - begin : start - begin + length]) for start, length in spans])


def read_clip(store: Store, sequence: FrameSequence, index_T: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some frames of a sequence in the order asked for, none of which is decoded twice: (T, S, S, 3) RGB."""
    wanted, places_T = np.unique(index_T, return_inverse=True)
    ends = np.cumsum([sample.frames for sample in sequence.samples])
    owners = np.searchsorted(ends, wanted, side="right")
    parts = []
    for owner in np.unique(owners).tolist():
        sample = sequence.samples[owner]
        parts.append(read_frames(store, sample, (wanted[owners == owner] - (ends[owner] - sample.frames)).tolist()))
    return np.concatenate(parts)[places_T]


def touched(sequence: FrameSequence, index_WT: NDArray[np.int64]) -> list[Sample]:
    """The samples that windows of a sequence take frames from, in time order."""
    return [sequence.samples[owner] for owner in np.unique(_owners(sequence, index_WT)).tolist()]


def cut_windows(
    decoded: Iterator[NDArray[np.uint8]], sequence: FrameSequence, index_WT: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Windows of a sequence; holds only the samples that a window touches.

    Args:
        decoded: the frames of each sample that is `touched`, in that order; no more are taken.
        sequence: where the frames come from.
        index_WT: frame indices in the sequence (`windows`), starts ascending.

    Yields:
        (T, S, S, 3) RGB.
    """
    ends = np.cumsum([sample.frames for sample in sequence.samples])
    starts = ends - [sample.frames for sample in sequence.samples]
    held: dict[int, NDArray[np.uint8]] = {}
    for index_T, owners in zip(index_WT, _owners(sequence, index_WT), strict=True):
        held = {owner: frames for owner, frames in held.items() if owner >= owners[0]}
        for owner in sorted(set(owners.tolist()) - set(held)):
            held[owner] = next(decoded)
        yield np.stack([held[o][i - starts[o]] for o, i in zip(owners.tolist(), index_T.tolist(), strict=True)])


def _owners(sequence: FrameSequence, index_WT: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the sample that each frame is in."""
    ends = np.cumsum([sample.frames for sample in sequence.samples])
    return np.searchsorted(ends, index_WT, side="right")


def held_out(dataset: Dataset) -> list[Sample]:
    """Samples of split 'val'.

    Raises:
        MarlinError: the dataset has none.
    """
    samples = [sample for sample in dataset.samples if sample.split == "val"]
    if not samples:
        raise MarlinError(
            f"dataset {dataset.url} has no held-out samples: preprocess into another corpus.name with "
            "preprocess.holdout (the end of each track) or preprocess.holdout_identities, or set eval.tasks=[]"
        )
    return samples


def _decode(sample: Sample, data: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise MarlinError(f"sample {sample.key} in {sample.shard} has a frame that is no JPEG: verify the dataset")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return rgb
