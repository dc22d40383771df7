"""Maps over a clip's grid of cubes, and the same over the pixels of its frames.

Shapes: B clips, N cubes, T tubelet frames, F frames, H×W patches of a frame, S×S pixels.
"""

from torch import Tensor
from torch.nn import functional as F

from train.model import Geometry


def unit_grid(values_BN: Tensor, geometry: Geometry, brightest: float = 0.0) -> Tensor:
    """A value of each cube as a map, stretched over [0, 1] clip by clip: (B, T, H, W). Equal values become zeros.

    Args:
        values_BN: float32.
        geometry: clip and cube.
        brightest: share of the cubes that are all drawn as 1, so that a few of them do not leave the others dark.
    """
    low_B1, high_B1 = values_BN.amin(1, keepdim=True), values_BN.quantile(1 - brightest, dim=1, keepdim=True)
    spread_B1 = high_B1 - low_B1
    unit_BN = ((values_BN - low_B1) / spread_B1.where(spread_B1 > 0, 1)).clamp_max(1)
    return unit_BN.view(-1, geometry.tubelets, geometry.side, geometry.side)


def over_frames(maps_BTHW: Tensor, geometry: Geometry) -> Tensor:
    """Maps over the pixels of every frame, bilinear in a frame, the same for all frames of a cube: (B, F, S, S)."""
    size = (geometry.size, geometry.size)
    pixels_BTSS = F.interpolate(maps_BTHW, size, mode="bilinear", align_corners=False)
    return pixels_BTSS.repeat_interleave(geometry.tubelet, dim=1)
