"""How drawn faces differ from the real ones: signal to noise and structure around the mouth, and the Fréchet distance.

Shapes: F frames, S×S pixels, G faces.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from skimage import metrics
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from eval.features import best_device
from eval.lipsync.faces import Box, Image
from pipeline.errors import UsageError

_MOST_PSNR = 100.0  # so that the same picture stays a number
_AT_ONCE = 64
_WINDOW = 7  # pixels that structure is compared in


def mouth_scores(drawn_FSS3: Image, real_FSS3: Image, boxes: Sequence[Box | None]) -> tuple[float, float] | None:
    """Mean PSNR in dB and mean structural similarity of the mouth over the frames where one is seen; None: in none.

    Args:
        drawn_FSS3: RGB bytes.
        real_FSS3: RGB bytes.
        boxes: of the mouth of each real frame; structure is compared in windows of 7×7 pixels around each pixel of it.
    """
    found = []
    for drawn, real, box in zip(drawn_FSS3, real_FSS3, boxes, strict=True):
        if box is None:
            continue
        left, top, right, bottom = box
        place = slice(top, bottom), slice(left, right)
        wide = _around(top, bottom, real.shape[0]), _around(left, right, real.shape[1])
        within = tuple(
            slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(place, wide, strict=True)
        )
        with np.errstate(divide="ignore"):
            ratio = metrics.peak_signal_noise_ratio(  # type: ignore[no-untyped-call]
                real[place], drawn[place], data_range=255
            )
        _, alike = metrics.structural_similarity(  # type: ignore[no-untyped-call]
            real[wide], drawn[wide], win_size=_WINDOW, channel_axis=-1, data_range=255, full=True
        )
        found.append((min(_MOST_PSNR, float(ratio)), float(alike[within].mean())))
    if not found:
        return None
    psnr, ssim = np.mean(found, axis=0).tolist()
    return psnr, ssim


class Frechet:
    """The Fréchet inception distance of drawn faces from real ones, of however many.

    Args:
        weights: the TorchScript file of Inception-v3 that FID is defined by, NVIDIA's `inception-2015-12-05.pt`. It is
            a program, which runs: give it only from where you trust it.

    Raises:
        UsageError: there is no such file, or it is none.
    """

    def __init__(self, weights: str) -> None:
        inception = _Inception(weights)
        inception.check()
        self._metric = FrechetInceptionDistance(inception, sync_on_compute=False).to(best_device())

    def add(self, frames_GSS3: Image, *, real: bool) -> None:
        """Count some faces, RGB bytes."""
        for first in range(0, len(frames_GSS3), _AT_ONCE):
            part = torch.from_numpy(frames_GSS3[first : first + _AT_ONCE]).permute(0, 3, 1, 2)
            self._metric.update(part.to(best_device()), real=real)

    def distance(self) -> float:
        """The distance of what was counted."""
        return float(self._metric.compute())


class _Inception(nn.Module):
    num_features = 2048

    def __init__(self, weights: str) -> None:
        super().__init__()
        if not Path(weights).is_file():
            raise UsageError(f"eval.lipsync.inception={weights}: no such file")
        self._weights = weights
        try:
            self.script = torch.jit.load(weights, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, pickle.UnpicklingError, ValueError) as error:
            text = _first_line(error)
            raise UsageError(f"eval.lipsync.inception={weights} is no TorchScript file: {text}") from None

    def check(self) -> None:
        """Whether it gives features of pictures.

        Raises:
            UsageError: it is another network.
        """
        what = f"eval.lipsync.inception={self._weights} is not the Inception of FID"
        try:
            found = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        except RuntimeError as error:
            raise UsageError(f"{what}: {_first_line(error)}") from None
        if not isinstance(found, Tensor) or found.shape != (1, self.num_features):
            raise UsageError(f"{what}: it gives no {self.num_features} numbers for a picture")

    def forward(self, faces_G3SS: Tensor) -> Tensor:
        """Features (G, 2048) of RGB bytes of any size."""
        with torch.inference_mode():
            found: Tensor = self.script(faces_G3SS, return_features=True)
        return found


def _around(begin: int, end: int, size: int) -> slice:
    """A stretch with the pixels beside it that windows at its ends see; at least a window."""
    first = max(0, min(begin - _WINDOW // 2, size - _WINDOW))
    return slice(first, max(end + _WINDOW // 2, first + _WINDOW))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
