"""Puts a drawn face back into the frame that it was cut out of.

Shapes: H×W pixels of a frame, S×S of a face.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.lipsync.faces import Image
from preprocess.arrays import Floats

_SEAM = 1 / 8
"""Width of the seam, in sides of the face."""


def paste(frame_HW3: Image, drawn_SS3: Image, box: Floats) -> Image:
    """The frame with the lower half of a face replaced; everything else is untouched, bit for bit.

    From the middle and from the edges of the box, the drawn face fades in over an eighth of its side: there is no line
    at which one ends and the other begins.

    Args:
        frame_HW3: RGB bytes.
        drawn_SS3: RGB bytes.
        box: centre x, centre y, width and height of the face in pixels of the frame; edges, so that pixel i covers i to
            i + 1.
    """
    x, y, across, down = (float(value) for value in box)
    left, right = max(0, int(x - across / 2)), min(frame_HW3.shape[1], int(np.ceil(x + across / 2)))
    top, bottom = max(0, int(y)), min(frame_HW3.shape[0], int(np.ceil(y + down / 2)))
    if left >= right or top >= bottom:
        return frame_HW3
    if len(drawn_SS3) > min(across, down):  # looking up single pixels would alias
        small = max(1, round(across)), max(1, round(down))
        drawn_SS3 = np.asarray(cv2.resize(drawn_SS3, small, interpolation=cv2.INTER_AREA), np.uint8)
    scales = across / drawn_SS3.shape[1], down / drawn_SS3.shape[0]
    corner = x - across / 2 - left, y - down / 2 - top
    first = [edge + scale / 2 - 0.5 for scale, edge in zip(scales, corner, strict=True)]
    matrix = np.array([[scales[0], 0, first[0]], [0, scales[1], first[1]]])
    shown = cv2.warpAffine(
        drawn_SS3, matrix, (right - left, bottom - top), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    columns = (np.arange(left, right) + 0.5 - x) / across + 0.5
    rows = (np.arange(top, bottom) + 0.5 - y) / down + 0.5
    weight = _fade(np.minimum(rows - 0.5, 1 - rows))[:, None] * _fade(np.minimum(columns, 1 - columns))
    pasted = frame_HW3.copy()
    place = pasted[top:bottom, left:right]
    place[:] = np.rint(place + (shown.astype(np.float32) - place) * weight[..., None])
    return pasted


def _fade(inwards: NDArray[np.floating]) -> NDArray[np.float32]:
    """0 at an edge and before, 1 a seam's width inside, without kinks."""
    share = np.clip(inwards / _SEAM, 0, 1)
    faded: NDArray[np.float32] = (share * share * (3 - 2 * share)).astype(np.float32)
    return faded
