"""JPEG decoding with OpenCV, for machines that DALI does not support: the same pixels, without a GPU's help.

Shapes: B clips, C channels, T frames, H×W pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.errors import MarlinError
from train.data.encoded import EncodedClip
from train.data.plan import Clip
from train.data.shards import UInt8s


def decode_clip(read: Callable[[Clip], EncodedClip], clip: Clip) -> tuple[EncodedClip, UInt8s]:
    """A clip as read, and its frames (T, H, W, C), RGB, mirrored where the clip is.

    Raises:
        MarlinError: a frame is missing or damaged.
    """
    encoded = read(clip)
    frames = []
    for image in encoded.jpegs:
        frame = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise MarlinError(
                f"sample {clip.sample.key} has a frame that is no JPEG: run `marlin dataset verify --deep`"
            )
        frames.append(frame[:, ::-1] if clip.flip else frame)
    return encoded, np.stack(frames).astype(np.uint8, copy=False)


def opencv_clips(
    groups: Iterator[Sequence[tuple[EncodedClip, UInt8s]]], device: torch.device
) -> Iterator[tuple[Sequence[EncodedClip], Tensor]]:
    """Groups of decoded clips as `train.data.dali.dali_clips` gives them."""
    for group in groups:
        frames_BTHWC = torch.from_numpy(np.stack([frames for _, frames in group])).to(device)
        frames_BCTHW = frames_BTHWC.permute(0, 4, 1, 2, 3)
        # Not divided: DALI multiplies, and a sample must have the same bits from both.
        clips_BCTHW = frames_BCTHW.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
        yield [encoded for encoded, _ in group], clips_BCTHW
