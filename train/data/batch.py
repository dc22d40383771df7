"""A batch of clips as the model takes it.

Shapes: B clips, C channels, T frames (tubelet frames for regions), H×W pixels (patches for regions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.data.encoded import EncodedClip
from train.data.shards import UInt8s
from train.hashing import signed

_ONE, _LEFT_EYE, _RIGHT_EYE = np.uint8(1), np.uint8(1 << 2), np.uint8(1 << 3)


@dataclass(frozen=True)
class Batch:
    """Clips with all that masking needs, on the device that was asked for.

    Attributes:
        clips_BCTHW: float32, RGB in [0, 1]: bytes times 1/255, in whatever order of memory the decoder left them.
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


def assemble(group: Sequence[EncodedClip], clips_BCTHW: Tensor, device: torch.device) -> Batch:
    """Put decoded clips, already on the device and mirrored, and all that masking needs together."""
    clips = [encoded.clip for encoded in group]
    regions = [mirror_regions(own.regions_THW) if own.clip.flip else own.regions_THW for own in group]
    return Batch(
        clips_BCTHW=clips_BCTHW,
        regions_BTHW=torch.from_numpy(np.stack(regions)).to(device),
        hash_B=torch.tensor([signed(clip.hash) for clip in clips], device=device),
        keys=tuple(clip.sample.key for clip in clips),
        starts=tuple(clip.start for clip in clips),
        flips=tuple(clip.flip for clip in clips),
    )


def mirror_regions(regions: UInt8s) -> UInt8s:
    """Region bitmasks of the mirrored picture: the person's left eye becomes the right one."""
    mirrored = regions[..., ::-1]
    swapped: UInt8s = (mirrored & _LEFT_EYE) << _ONE | (mirrored & _RIGHT_EYE) >> _ONE
    return mirrored & ~(_LEFT_EYE | _RIGHT_EYE) | swapped
