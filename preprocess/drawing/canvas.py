"""A picture and its label map, painted together: a pixel belongs to a part that covers at least half of it."""

from collections.abc import Sequence

import cv2
import numpy as np

from preprocess.arrays import Floats, Image

_SHIFT = 4
_FAR = 4096.0
_HALF = 128

Paint = Sequence[float] | Floats
"""A colour (3,), or a colour for each pixel of the picture (S, S, 3)."""

_Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


class Canvas:
    """Paints outlines over each other. Coordinates are pixels whose edges are whole numbers.

    Attributes:
        size: S, its side in pixels.
        rgb: (S, S, 3) float32, 0 to 255.
        labels: (S, S) uint8, values index `regions.REGIONS`.
    """

    def __init__(self, ground: Floats) -> None:
        self.size = len(ground)
        self.rgb: Floats = ground.astype(np.float32)
        self.labels: Image = np.zeros((self.size, self.size), np.uint8)

    def fill(
        self,
        outline: Floats,
        colour: Paint,
        region: int | None = None,
        *,
        opacity: float = 1.0,
        within: Floats | None = None,
    ) -> None:
        """Fills an outline (N, 2); `region` None leaves the labels, `within` clips it by another outline."""
        box = self._box(outline, 1.0)
        if box is None:
            return
        mask = _inside(outline, box)
        if within is not None:
            mask = np.minimum(mask, _inside(within, box))
        self._put(box, mask, colour, region, opacity)

    def stroke(
        self,
        line: Floats,
        colour: Paint,
        width: float,
        region: int | None = None,
        *,
        opacity: float = 1.0,
        closed: bool = False,
    ) -> None:
        """Draws a line (N, 2) of a width in pixels (at least 1)."""
        thick = max(1, round(width))
        box = self._box(line, thick)
        if box is None:
            return
        mask = _blank(box)
        cv2.polylines(mask, [_fixed(line, box)], closed, 255, thick, cv2.LINE_AA, _SHIFT)
        self._put(box, mask, colour, region, opacity)

    def glow(self, centre: Floats, radius: float, colour: Paint, opacity: float, within: Floats) -> None:
        """A soft spot, clipped by an outline; leaves the labels."""
        x, y = (float(value) for value in centre)
        corners = np.array([[x - radius, y - radius], [x + radius, y + radius]])
        box = self._box(corners, 1.0)
        if box is None:
            return
        mask = _inside(within, box)
        left, top, right, bottom = box
        columns, rows = np.arange(left, right) + 0.5 - x, np.arange(top, bottom)[:, None] + 0.5 - y
        near = np.clip(1 - (columns**2 + rows**2) / radius**2, 0, 1) ** 2
        self._put(box, np.rint(mask * near).astype(np.uint8), colour, None, opacity)

    def _box(self, points: Floats, margin: float) -> _Box | None:
        """The pixels that may be touched, None where there are none."""
        left, top = np.maximum(points.min(axis=0) - margin, 0).astype(int).tolist()
        right, bottom = np.minimum(points.max(axis=0) + margin + 2, self.size).astype(int).tolist()
        box = left, top, right, bottom
        return box if box[0] < box[2] and box[1] < box[3] else None

    def _put(self, box: _Box, mask: Image, colour: Paint, region: int | None, opacity: float) -> None:
        place = slice(box[1], box[3]), slice(box[0], box[2])
        paint = np.asarray(colour, np.float32)
        under, paint = self.rgb[place], paint if paint.ndim == 1 else paint[place]
        under += (paint - under) * (mask * np.float32(opacity / 255))[..., None]
        if region is not None:
            self.labels[place][mask >= _HALF] = region


def _blank(box: _Box) -> Image:
    return np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)


def _inside(outline: Floats, box: _Box) -> Image:
    """How much of each pixel of a box lies in an outline, 0 to 255."""
    mask = _blank(box)
    cv2.fillPoly(mask, [_fixed(outline, box)], 255, cv2.LINE_AA, _SHIFT)
    return mask


def _fixed(points: Floats, box: _Box) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    # OpenCV's whole numbers are the middles of pixels; far outside its fixed point would overflow.
    inside = np.clip(points - box[:2] - 0.5, -_FAR, _FAR)
    return np.rint(inside * (1 << _SHIFT)).astype(np.int32)
