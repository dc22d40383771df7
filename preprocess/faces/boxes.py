"""Boxes of a track: one a frame, in the detector's sense of a face, smoothed in time."""

import numpy as np
from scipy.signal import savgol_filter

from preprocess.arrays import Floats
from preprocess.faces.geometry import box_of, squares
from preprocess.faces.track import Track

SMOOTHING_SECONDS = 0.5
POLYNOMIAL = 2


def track_boxes(track: Track) -> Floats:
    """One box a frame (n, 4).

    The detector's box and the mesh's differ by an offset that turns with the head: it is known where the detector
    looked, interpolated in between, and added to the mesh's box. Missed frames are interpolated.
    """
    n = len(track.observations)
    meshes = np.full((n, 4), np.nan)
    detected = np.full((n, 4), np.nan)
    for row, observation in enumerate(track.observations):
        if observation.points is not None:
            meshes[row] = box_of(observation.points)
        if observation.detected is not None:
            detected[row] = observation.detected
    scale = np.tile(meshes[:, 2:] - meshes[:, :2], 2)
    boxes = meshes + _interpolated((detected - meshes) / scale, empty=0.0) * scale
    return _interpolated(np.where(np.isnan(boxes), detected, boxes), empty=np.nan)


def smooth_squares(boxes: Floats, fps: float) -> Floats:
    """Squares (n, 3) around boxes (n, 4), smoothed over half a second without delay (Savitzky-Golay)."""
    raw = squares(boxes)
    window = min(round(SMOOTHING_SECONDS * fps) | 1, (len(raw) - 1) | 1)
    if window > len(raw):
        window -= 2
    if window <= POLYNOMIAL:
        return raw
    smooth: Floats = savgol_filter(raw, window, POLYNOMIAL, axis=0, mode="interp")
    return smooth


def _interpolated(values: Floats, empty: float) -> Floats:
    """Rows (n, k) with NaN rows filled linearly in time, and held at both ends."""
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    if not len(known):
        return np.full_like(values, empty)
    rows = np.arange(len(values))
    return np.stack([np.interp(rows, known, values[known, column]) for column in range(values.shape[1])], axis=1)
