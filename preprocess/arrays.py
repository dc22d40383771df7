"""Names of the array types that images, masks and coordinates travel in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""RGB frame (H, W, 3) or label map (H, W), uint8."""
Floats = NDArray[np.floating[Any]]
"""Coordinates, boxes or probabilities."""
Mask = NDArray[np.bool_]
"""Boolean image (H, W)."""
