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
    side = size + 2 * pad
    shrink = int(1 / matrix[0, 0])
    if shrink >= 2:
        frame, matrix = _shrunk(frame, matrix, side, shrink)
    return np.asarray(
        cv2.warpAffine(
            frame, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
    )


def _shrunk(frame: Image, matrix: Floats, side: int, shrink: int) -> tuple[Image, Floats]:
    """The part of a frame that a crop shows, in averages of shrink×shrink pixels, and the matrix from there.

    Bilinear sampling alone would alias.
    """
    blocks = []
    for axis, length in ((1, frame.shape[0]), (0, frame.shape[1])):
        low, high = ((edge - matrix[axis, 2]) / matrix[0, 0] / shrink for edge in (0, side))
        # Blocks of the whole frame's grid, so that a crop's pixels do not depend on how much of the frame is read.
        blocks.append((max(0, int(low) - 2), min(length // shrink, int(high) + 3)))
    (top, bottom), (left, right) = blocks
    if top >= bottom or left >= right:
        return frame, matrix
    part = frame[top * shrink : bottom * shrink, left * shrink : right * shrink]
    small = cv2.resize(part, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    middle = (shrink - 1) / 2
    back = [[shrink, 0, left * shrink + middle], [0, shrink, top * shrink + middle], [0, 0, 1]]
    return np.asarray(small, np.uint8), matrix @ np.array(back, np.float64)


def whole(frame: Image, size: int) -> Image:
    """A whole frame (H, W, 3) as a crop (size, size, 3): another shape than a square is stretched."""
    shrinks = max(frame.shape[:2]) > size
    resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
