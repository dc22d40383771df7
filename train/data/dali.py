"""JPEG decoding with DALI: one pipeline for the CPU and for the GPU's `mixed` decoder.

Shapes: B clips, C channels, T frames, H×W pixels; N = B·T images of a group.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MarlinError
from train.data.encoded import EncodedClip
from train.data.shards import UInt8s

try:
    _dali: Any = import_module("nvidia.dali")
except ImportError as error:  # the extra is missing, or there is no wheel for this platform
    raise MarlinError(
        f"DALI cannot be imported ({error}): run `marlin doctor`, it names the extra to install, "
        "or set data.decoder=opencv, which needs no DALI"
    ) from None

_WHITE = [255.0] * 3


def dali_clips(
    groups: Iterator[Sequence[EncodedClip]],
    images: int,
    *,
    device: torch.device,
    mixed: bool,
    threads: int,
    prefetch: int,
) -> Iterator[tuple[Sequence[EncodedClip], Tensor]]:
    """Decode groups of clips, some groups ahead of the reader.

    Args:
        groups: what to decode.
        images: most images of a group.
        device: where the clips shall lie; bytes travel there and become floats there.
        mixed: let that device, a GPU, decode (DALI's `mixed`) instead of the CPU.
        threads: decoding threads.
        prefetch: groups decoded ahead.

    Yields:
        A group and its clips, float32 (B, C, T, H, W), RGB in [0, 1], mirrored where they are.

    Raises:
        MarlinError: DALI failed.
    """
    ahead: deque[Sequence[EncodedClip]] = deque()

    failed: list[Exception] = []

    def feed() -> tuple[list[UInt8s], NDArray[np.int32]]:
        try:
            group = next(groups)
        except StopIteration:
            raise
        except Exception as error:  # DALI would turn it into an error of its own
            failed.append(error)
            raise
        ahead.append(group)
        flips = [clip.clip.flip for clip in group for _ in clip.jpegs]
        return [image for clip in group for image in clip.jpegs], np.array(flips, dtype=np.int32)

    pipeline = _pipeline(feed, images, device=device, mixed=mixed, threads=threads, prefetch=prefetch)
    while True:
        try:
            (frames,) = pipeline.run()
            # No copy is needed: DALI's default executor does not touch again what it gave away.
            frames_NCHW: Tensor = torch.utils.dlpack.from_dlpack(frames.as_tensor())
        except StopIteration:
            return
        except RuntimeError as error:
            if failed:
                raise failed[0] from None
            keys = ", ".join(clip.clip.sample.key for group in [*ahead][:1] for clip in group)
            raise MarlinError(
                f"decoding failed in the batch of {keys}: `marlin dataset verify --deep` checks samples, "
                f"`marlin doctor` DALI: {' '.join(str(error).split())[:300]}"
            ) from None
        group = ahead.popleft()
        yield group, frames_NCHW.view(len(group), -1, *frames_NCHW.shape[1:]).transpose(1, 2)


def _pipeline(
    feed: Callable[[], Any], images: int, *, device: torch.device, mixed: bool, threads: int, prefetch: int
) -> Any:
    """From the bytes and flips of each image to its float pixels.

    Images are separate DALI samples, so that its threads share them evenly. Floats are made here and not in torch:
    DALI reuses its memory, and a fresh tensor of a batch's size costs a CPU more, in page faults, than decoding does.
    """
    on_gpu = device.type == "cuda"
    fn, types = _dali.fn, _dali.types
    pipeline = _dali.Pipeline(
        batch_size=images,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        prefetch_queue_depth=prefetch,
    )
    with pipeline:
        jpeg_N, flip_N = fn.external_source(source=feed, num_outputs=2, dtype=[types.UINT8, types.INT32], ndim=[1, 0])
        # Fancy upsampling: by default a GPU enlarges colour more coarsely than the CPU does.
        bytes_NHWC = fn.decoders.image(
            jpeg_N, device="mixed" if mixed else "cpu", output_type=types.RGB, jpeg_fancy_upsampling=True
        )
        frames_NCHW = fn.crop_mirror_normalize(
            bytes_NHWC.gpu() if on_gpu else bytes_NHWC,
            mirror=flip_N,
            std=_WHITE,
            dtype=types.FLOAT,
            output_layout="CHW",
        )
        pipeline.set_outputs(frames_NCHW)
    pipeline.build()
    return pipeline
