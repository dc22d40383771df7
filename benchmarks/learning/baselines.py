"""Features that no network makes, to be set beside learned ones.

Shapes: B windows, T frames, S×S pixels, D values.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.places import spread

SIDE = 16


def pixels(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Raw pixels: the mean frame in colour, shrunk to 16×16 (B, 768), values in [0, 1]."""
    means = frames_BTHWC.mean(axis=1, dtype=np.float32)
    small = [cv2.resize(mean, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for mean in means]
    return np.asarray(np.stack(small), np.float32) / np.float32(255)


def moving_pixels(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Raw pixels by place: mean and deviation over the frames, in colour, shrunk to 16×16: (B, 1536)."""
    small = [[cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in clip] for clip in frames_BTHWC]
    return spread(np.asarray(small, np.float32) / np.float32(255))


def statistics(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and deviation of red, green and blue in each frame (B, 6 T), values in [0, 1]."""
    flat = frames_BTHWC.reshape(*frames_BTHWC.shape[:2], -1, 3).astype(np.float32) / 255
    found = np.concatenate([flat.mean(2), flat.std(2)], axis=-1)
    return np.asarray(found.reshape(len(found), -1), np.float32)
