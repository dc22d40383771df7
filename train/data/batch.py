"""A batch of clips as the model takes it.

Shapes: B clips, C channels, T frames (tubelet frames for regions), H×W pixels (patches for regions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import DataConfig
from train.data.plan import Clip
from train.data.shards import UInt8s
from train.hashing import signed
from train.sizes import TUBELET

_ONE, _LEFT_EYE, _RIGHT_EYE = np.uint8(1), np.uint8(1 << 2), np.uint8(1 << 3)


@dataclass(frozen=True)
class Batch:
    """Clips with all that masking needs, on the device that was asked for.

    Attributes:
        clips_BCTHW: float32, RGB in [0, 1].
        regions_BTHW: uint8 region bitmasks of the first frame of each tubelet, on the dataset's patch grid.
        hash_B: int64 sample hashes; they decide the masks.
        keys: sample keys.
        starts: first frame of each clip in its sample.
        flips: whether each clip is mirrored.
    """

    clips_BCTHW: Tensor
    regions_BTHW: Tensor
    hash_B: Tensor
    keys: tuple[str, ...]
    starts: tuple[int, ...]
    flips: tuple[bool, ...]


def assemble(
    clips: Sequence[Clip], frames_BTHWC: Tensor, regions: Sequence[UInt8s], data: DataConfig, device: torch.device
) -> Batch:
    """Put decoded clips and their samples' region grids together.

    Args:
        clips: what was read.
        frames_BTHWC: its frames, uint8 RGB.
        regions: grids (frames of the sample, H, W) of each clip's sample.
        data: which frames a clip takes.
        device: where the batch shall lie.
    """
    frames_BCTHW = frames_BTHWC.to(device).permute(0, 4, 1, 2, 3)
    clips_BCTHW = frames_BCTHW.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    for index, clip in enumerate(clips):
        if clip.flip:
            clips_BCTHW[index] = clips_BCTHW[index].flip(-1)
    regions_BTHW = np.stack([_tubelet_regions(clip, own, data) for clip, own in zip(clips, regions, strict=True)])
    return Batch(
        clips_BCTHW=clips_BCTHW,
        regions_BTHW=torch.from_numpy(regions_BTHW).to(device),
        hash_B=torch.tensor([signed(clip.hash) for clip in clips], device=device),
        keys=tuple(clip.sample.key for clip in clips),
        starts=tuple(clip.start for clip in clips),
        flips=tuple(clip.flip for clip in clips),
    )


def _tubelet_regions(clip: Clip, regions: UInt8s, data: DataConfig) -> UInt8s:
    chosen = regions[list(clip.frames(data))[::TUBELET]]
    return mirror_regions(chosen) if clip.flip else chosen


def mirror_regions(regions: UInt8s) -> UInt8s:
    """Region bitmasks of the mirrored picture: the person's left eye becomes the right one."""
    mirrored = regions[..., ::-1]
    swapped: UInt8s = (mirrored & _LEFT_EYE) << _ONE | (mirrored & _RIGHT_EYE) >> _ONE
    return mirrored & ~(_LEFT_EYE | _RIGHT_EYE) | swapped
