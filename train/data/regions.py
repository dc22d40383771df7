"""The regions that a clip shows, on the patch grid.

Shapes: F frames of a sample, T tubelet frames of a clip, H×W patches.
"""

import numpy as np

from pipeline.config.schema import DataConfig
from train.data.plan import Clip
from train.data.shards import UInt8s
from train.sizes import TUBELET

_ONE, _LEFT_EYE, _RIGHT_EYE = np.uint8(1), np.uint8(1 << 2), np.uint8(1 << 3)


def tubelet_regions(clip: Clip, regions_FHW: UInt8s, data: DataConfig) -> UInt8s:
    """Region bitmasks (T, H, W) of the first frame of each tubelet, mirrored where the clip is.

    Args:
        clip: which frames.
        regions_FHW: grids of its whole sample.
        data: which frames a clip takes.
    """
    regions_THW = regions_FHW[clip.frames(data)[::TUBELET]]
    return mirror_regions(regions_THW) if clip.flip else regions_THW


def mirror_regions(regions: UInt8s) -> UInt8s:
    """Region bitmasks (…, W) of the mirrored picture: the person's left eye becomes the right one."""
    mirrored = regions[..., ::-1]
    swapped: UInt8s = (mirrored & _LEFT_EYE) << _ONE | (mirrored & _RIGHT_EYE) >> _ONE
    return mirrored & ~(_LEFT_EYE | _RIGHT_EYE) | swapped
