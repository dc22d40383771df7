"""Scene cuts: a change of picture that no motion explains, and that is not taken back at once as a flash is."""

from enum import Enum

import cv2
import numpy as np

from preprocess.arrays import Floats, Image

THUMBNAIL = (64, 36)
HISTOGRAM_BINS = 8
# Both must be exceeded: motion changes pixels alone, a change of exposure colours alone.
COLOUR_CHANGE = 0.45
PIXEL_CHANGE = 18.0
FLASH_FRAMES = 3
"""A picture that comes back after at most so many others was interrupted by a flash, not by a cut."""


class Change(Enum):
    """What a frame is to the frames before it."""

    NONE = 0
    CUT = 1
    BACK = 2
    """The scene before the last cut goes on: the cut was a flash."""


class CutFinder:
    """Compares each frame with the one before, and for a few frames after a cut with the last one before it."""

    def __init__(self) -> None:
        self._before: _Look | None = None
        self._left: tuple[_Look, int] | None = None

    def __call__(self, rgb: Image) -> Change:
        """What starts with this frame; the first frame starts nothing."""
        before, self._before = self._before, _Look(rgb)
        if before is None:
            return Change.NONE
        cut = self._before.differs(before)
        if self._left is not None:
            left, age = self._left
            self._left = (left, age + 1) if age < FLASH_FRAMES else None
            if not self._before.differs(left):
                self._left = None
                return Change.BACK
        elif cut:
            self._left = before, 1
        return Change.CUT if cut else Change.NONE


class _Look:
    """Thumbnail of a frame, and its colours."""

    def __init__(self, rgb: Image) -> None:
        # Every n-th pixel first: averaging all of a large frame would take longer than all else here.
        between = (4 * THUMBNAIL[0], 4 * THUMBNAIL[1])
        if rgb.shape[1] > between[0] and rgb.shape[0] > between[1]:
            rgb = np.asarray(cv2.resize(rgb, between, interpolation=cv2.INTER_NEAREST), np.uint8)
        small = np.asarray(cv2.resize(rgb, THUMBNAIL, interpolation=cv2.INTER_AREA))
        colours = np.bincount((small // (256 // HISTOGRAM_BINS)).reshape(-1, 3) @ _BIN_WEIGHTS, minlength=_BINS)
        self._pixels: Floats = small.astype(np.float32)
        self._colours: Floats = colours / colours.sum()

    def differs(self, other: "_Look") -> bool:
        pixels = float(np.abs(self._pixels - other._pixels).mean())
        moved = float(np.abs(self._colours - other._colours).sum()) / 2
        return pixels > PIXEL_CHANGE and moved > COLOUR_CHANGE


_BIN_WEIGHTS = np.array([HISTOGRAM_BINS**2, HISTOGRAM_BINS, 1])
_BINS = HISTOGRAM_BINS**3
