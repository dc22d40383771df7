"""LSE-D and LSE-C, the distance and the confidence of a sync network (Chung and Zisserman, "Out of time", 2016).

Shapes: F windows of five frames, K offsets, D width of an embedding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MarlinError

REACH = 15
"""Offsets are looked for so many frames to both sides, as Wav2Lip's evaluation does."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Sync:
    """How well the lips of a video go with a sound.

    Attributes:
        distance: mean distance at the offset where it is least: LSE-D, less is better.
        confidence: the median over all offsets less that: LSE-C, more is better.
        offset: frames by which the sound is late at that offset; SyncNet's program prints it with the other sign.
    """

    distance: float
    confidence: float
    offset: int


def sync_of(lips_FD: Vectors, sound_FD: Vectors) -> Sync:
    """Distance, confidence and offset of a video.

    Args:
        lips_FD: embeddings of the lips, one for each frame that five frames begin with.
        sound_FD: embeddings of the sound, for the same frames.

    Raises:
        MarlinError: so short a video has no pairs at every offset.
    """
    distances_K = offset_distances(lips_FD, sound_FD)
    best = int(distances_K.argmin())
    return Sync(float(distances_K[best]), float(np.median(distances_K) - distances_K[best]), best - REACH)


def offset_distances(lips_FD: Vectors, sound_FD: Vectors, reach: int = REACH) -> NDArray[np.float64]:
    """Mean Euclidean distance (K) of lips to the sound k frames later, k from -reach to reach.

    Frames whose sound would lie outside of the video do not count; SyncNet's program compares them with zeros instead,
    which for short videos says more about their ends than about lips.

    Raises:
        MarlinError: so short a video has no pairs at every offset.
    """
    frames = min(len(lips_FD), len(sound_FD))
    if frames <= reach:
        raise MarlinError(f"sync over ±{reach} frames needs {reach + 5} frames or more, and there are {frames + 4}")
    found = []
    for offset in range(-reach, reach + 1):
        lips = lips_FD[max(0, -offset) : frames - max(0, offset)]
        sound = sound_FD[max(0, offset) : frames + min(0, offset)]
        found.append(float(np.linalg.norm(lips.astype(np.float64) - sound, axis=1).mean()))
    return np.array(found)
