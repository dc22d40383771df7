"""A batch of clips as the model takes it.

Shapes: B clips, C channels, T frames (tubelet frames for regions), H×W pixels (patches for regions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.data.encoded import EncodedClip
from train.data.plan import Clip
from train.data.shards import UInt8s
from train.hashing import signed


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
    regions_BTHW, hash_B = mask_inputs(clips, [encoded.regions_THW for encoded in group])
    return Batch(
        clips_BCTHW=clips_BCTHW,
        regions_BTHW=regions_BTHW.to(device),
        hash_B=hash_B.to(device),
        keys=tuple(clip.sample.key for clip in clips),
        starts=tuple(clip.start for clip in clips),
        flips=tuple(clip.flip for clip in clips),
    )


def mask_inputs(clips: Sequence[Clip], regions: Sequence[UInt8s]) -> tuple[Tensor, Tensor]:
    """What decides the masks of clips: `regions_BTHW` and `hash_B` of a `Batch`, on the CPU.

    Args:
        clips: what is read.
        regions: the `tubelet_regions` (T, H, W) of each.
    """
    return torch.from_numpy(np.stack(regions)), torch.tensor([signed(clip.hash) for clip in clips])
