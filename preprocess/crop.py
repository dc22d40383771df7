"""Cuts a square of a frame out at a fixed size, zeros where it leaves the frame."""

import cv2
import numpy as np

from preprocess.arrays import Floats, Image


def crop_matrix(square: Floats, size: int, pad: int = 0) -> Floats:
    """Affine (2, 3) from frame pixels to the pixels of a crop that is widened by `pad` pixels on each side.

    Args:
        square: centre x, centre y, side in frame pixels (edges, so that pixel i covers i to i+1).
        size: side of the crop in pixels.
    """
    x, y, side = (float(value) for value in square)
    scale = size / max(side, 1.0)
    shift = size / 2 + pad - 0.5
    return np.array([[scale, 0, shift - (x - 0.5) * scale], [0, scale, shift - (y - 0.5) * scale]], np.float64)


def extract(frame: Image, square: Floats, size: int, pad: int = 0) -> Image:
    """The square (size + 2 pad, size + 2 pad, 3) of a frame (H, W, 3), resampled with sub-pixel place."""
    matrix = crop_matrix(square, size, pad)
    shrink = int(1 / matrix[0, 0])
    if shrink >= 2:
        # Bilinear sampling alone would alias: first average whole blocks of pixels.
        height, width = (side // shrink * shrink for side in frame.shape[:2])
        if height and width:
            small = (width // shrink, height // shrink)
            frame = np.asarray(cv2.resize(frame[:height, :width], small, interpolation=cv2.INTER_AREA))
            centre = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
            matrix = matrix @ centre
    side = size + 2 * pad
    return np.asarray(
        cv2.warpAffine(
            frame, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
    )
