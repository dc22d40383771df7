"""JPEG decoding with DALI: one pipeline for the CPU and for the GPU's `mixed` decoder."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import MarlinError
from train.data.shards import UInt8s

try:
    _dali: Any = import_module("nvidia.dali")
except ImportError as error:  # the extra is missing, or there is no wheel for this platform
    raise MarlinError(
        f"DALI cannot be imported ({error}): run `marlin doctor`, it names the extra to install"
    ) from None


class _SampleInfo(Protocol):
    idx_in_batch: int
    iteration: int


class DaliFrames:
    """Decodes an endless sequence of groups of JPEG images of one size, some groups ahead of the reader.

    Images of a group are separate DALI samples, so that its threads share them evenly. On one core of a 2-core x86
    machine this and 16 outputs of one image each gave equal rates; the float conversion is left to torch, which does
    it on the device that trains, after a four times smaller copy.
    """

    def __init__(
        self,
        read: Callable[[int, int], UInt8s],
        images: int,
        *,
        gpu: int | None,
        threads: int,
        prefetch: int,
    ) -> None:
        """Build the pipeline; nothing is read before the first `next`.

        Args:
            read: (group, image) to the bytes of an intact JPEG; called in order, `prefetch` groups ahead, from the
                reader's thread.
            images: images of a group.
            gpu: number of the GPU that decodes, and holds the frames (DALI's `mixed`); None decodes on the CPU.
            threads: decoding threads.
            prefetch: groups decoded ahead.
        """

        def source(info: _SampleInfo) -> UInt8s:
            return read(info.iteration, info.idx_in_batch)

        self._pipeline = _dali.Pipeline(
            batch_size=images,
            num_threads=threads,
            device_id=gpu,
            prefetch_queue_depth=prefetch,
        )
        with self._pipeline:
            jpeg = _dali.fn.external_source(source=source, batch=False, dtype=_dali.types.UINT8, ndim=1)
            frames = _dali.fn.decoders.image(
                jpeg, device="cpu" if gpu is None else "mixed", output_type=_dali.types.RGB
            )
            self._pipeline.set_outputs(frames)
        self._pipeline.build()
        self._copied: Any = None if gpu is None else torch.cuda.Event()  # type: ignore[no-untyped-call]

    def next(self) -> Tensor:
        """The frames of the next group, uint8 (images, H, W, 3), RGB, valid until the next call.

        Raises:
            MarlinError: DALI failed.
        """
        if self._copied is not None:
            self._copied.synchronize()
        try:
            (frames,) = self._pipeline.run()
            decoded: Tensor = torch.utils.dlpack.from_dlpack(frames.as_tensor())
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise MarlinError(f"decoding failed, `marlin doctor` checks DALI: {reason[:300]}") from None
        if self._copied is not None:
            # DALI reuses its memory at the next run, and does not know what torch has queued up to read from it.
            decoded = decoded.clone()
            self._copied.record()
        return decoded

    def close(self) -> None:
        """Stop the decoding threads and give their memory back."""
        self._pipeline = None
