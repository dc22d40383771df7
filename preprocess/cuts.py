"""Scene cuts: a change of picture that no motion explains."""

import cv2
import numpy as np

from preprocess.arrays import Floats, Image

THUMBNAIL = (64, 36)
HISTOGRAM_BINS = 8
# Both must be exceeded: a flash changes colours alone, a fast pan pixels alone.
COLOUR_CHANGE = 0.45
PIXEL_CHANGE = 18.0


class CutFinder:
    """Compares each frame with the one before."""

    def __init__(self) -> None:
        self._before: tuple[Floats, Floats] | None = None

    def __call__(self, rgb: Image) -> bool:
        """True when a new scene starts with this frame; the first frame is no cut."""
        small = np.asarray(cv2.resize(rgb, THUMBNAIL, interpolation=cv2.INTER_AREA))
        colours = np.bincount((small // (256 // HISTOGRAM_BINS)).reshape(-1, 3) @ _BIN_WEIGHTS, minlength=_BINS)
        now = small.astype(np.float32), colours / colours.sum()
        before, self._before = self._before, now
        if before is None:
            return False
        pixels = float(np.abs(now[0] - before[0]).mean())
        moved = float(np.abs(now[1] - before[1]).sum()) / 2
        return pixels > PIXEL_CHANGE and moved > COLOUR_CHANGE


_BIN_WEIGHTS = np.array([HISTOGRAM_BINS**2, HISTOGRAM_BINS, 1])
_BINS = HISTOGRAM_BINS**3
