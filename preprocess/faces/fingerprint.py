"""Perceptual hash of a face, and its form in manifests."""

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.arrays import Image

CELLS = 12
BITS = CELLS * CELLS
STEP = 4
"""Every so many frames of a video, counted from its first, have a fingerprint."""

Bits = NDArray[np.uint8]


def fingerprint(picture: Image) -> bytes:
    """Difference hash of a portrait, 144 bits: whether each of 12×12 cells is brighter than its left neighbour."""
    cells = np.asarray(cv2.resize(picture, (CELLS + 1, CELLS), interpolation=cv2.INTER_AREA))
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes()


def places(start: int, frames: int) -> range:
    """Frames of a run that have a fingerprint."""
    return range(start + -start % STEP, start + frames, STEP)
