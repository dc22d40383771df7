"""JPEG decoding with OpenCV, for machines that DALI does not support: the same pixels, without a GPU's help.

Shapes: B clips, C channels, T frames, F frames of a sample, H×W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import DataConfig
from pipeline.errors import MarlinError
from train.data.encoded import EncodedClip
from train.data.plan import Clip
from train.data.regions import tubelet_regions
from train.data.shards import ShardReader, UInt8s


def decode_clip(read: Callable[[Clip], EncodedClip], clip: Clip) -> tuple[EncodedClip, UInt8s]:
    """A clip as read, and its frames (T, H, W, C), RGB, mirrored where the clip is.

    Raises:
        MarlinError: a frame is missing or damaged.
    """
    encoded = read(clip)
    frames_THWC = _decode(encoded.jpegs, clip.sample.key)
    return encoded, frames_THWC[:, :, ::-1] if clip.flip else frames_THWC


class KeptFrames:
    """Clips of samples that are decoded whole once and kept, as far as memory is allowed for them; safe for threads.

    What finds no room is decoded at each use, as `decode_clip` does it.
    """

    def __init__(self, reader: ShardReader, data: DataConfig, read: Callable[[Clip], EncodedClip]) -> None:
        self._reader, self._data, self._read = reader, data, read
        self._room = int(data.keep_gb * 1e9)
        self._kept: dict[str, _Kept] = {}
        self._lock = Lock()

    def __call__(self, clip: Clip) -> tuple[EncodedClip, UInt8s]:
        """As `decode_clip`."""
        kept = self._kept.get(clip.sample.key) or self._keep(clip)
        if kept is None:
            return decode_clip(self._read, clip)
        chosen = clip.frames(self._data)
        frames_THWC = kept.frames_FHWC[chosen.start : chosen.stop : chosen.step]
        encoded = EncodedClip(clip, (), tubelet_regions(clip, kept.regions_FHW, self._data))
        return encoded, frames_THWC[:, :, ::-1] if clip.flip else frames_THWC

    def _keep(self, clip: Clip) -> "_Kept | None":
        sample = clip.sample
        size = sample.frames * self._reader.size**2 * 3
        with self._lock:
            if size > self._room:
                return None
            self._room -= size
        frames_FHWC = _decode(self._reader.jpegs(sample, range(sample.frames)), sample.key)
        kept = _Kept(frames_FHWC, self._reader.regions(sample))
        with self._lock:
            if sample.key in self._kept:  # another thread was faster
                self._room += size
            return self._kept.setdefault(sample.key, kept)


@dataclass(frozen=True)
class _Kept:
    frames_FHWC: UInt8s
    regions_FHW: UInt8s


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


def _decode(jpegs: Iterable[UInt8s], key: str) -> UInt8s:
    frames = []
    for image in jpegs:
        frame = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise MarlinError(f"sample {key} has a frame that is no JPEG: run `marlin dataset verify --deep`")
        frames.append(frame)
    return np.stack(frames).astype(np.uint8, copy=False)
