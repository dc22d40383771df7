"""Parser `farl`: FaRL fine-tuned on LaPa, as TorchScript, fed as the facer library feeds it.

The face is aligned by five points, then tanh-warped: the middle of the aligned square is kept and its surroundings are
squeezed, so that the network sees the whole head and the face at full resolution.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.parsers.base import Device, View, batches, checked
from preprocess.parsers.polygons import five_points
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN

if TYPE_CHECKING:
    import torch

SIDE = 448
KEY = "preprocess.models.farl"

# LaPa's classes in their published order, under facer's names: rb is the person's right brow, on the left of a picture.
CLASSES = ("background", "face", "rb", "lb", "re", "le", "nose", "ulip", "imouth", "llip", "hair")
REGION_OF = (BACKGROUND, SKIN, RIGHT_EYE, LEFT_EYE, RIGHT_EYE, LEFT_EYE, NOSE, MOUTH, MOUTH, MOUTH, HAIR)

# Where the five points lie in the aligned square, whose edges are at -1 and 1.
ALIGNED = np.array([(196.0, 226.0), (316.0, 226.0), (256.0, 286.0), (220.0, 360.4), (292.0, 360.4)]) / 256.0 - 1.0
# Beyond 1 - WARP from the middle the square is squeezed; what would come from beyond REACH comes from there.
WARP, REACH = 0.8, 0.999


class FarlParser:
    """FaRL-LaPa (RGB/255, 448×448 in; logits of 11 classes out, alone or first of a tuple)."""

    name = "farl"

    def __init__(self, path: Path, view: View, device: Device = "cpu", batch: int | None = None) -> None:
        """Loads and tries the network.

        Args:
            path: TorchScript file.
            view: what pictures show.
            device: where it runs; on the CPU it takes one thread.
            batch: pictures of one network call; None takes all that a call of the parser brings.

        Raises:
            MarlinError: not such a network, or no such device.
        """
        import torch

        if device == "cpu":
            torch.set_num_threads(1)
        elif not torch.cuda.is_available():
            raise MarlinError("preprocess.parser=farl was given a GPU, but this torch has no CUDA device")
        self._device, self._view, self._batch = torch.device(device), view, batch
        try:
            self._net = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise MarlinError(f"{KEY}: {path} is not a TorchScript file: {reason}") from error
        self._try(path)
        self._axis = _unsqueezed((torch.arange(SIDE, device=self._device) + 0.5) / (SIDE / 2) - 1)
        self._pixels = torch.arange(view.size, device=self._device, dtype=torch.float32) + view.pad
        self._regions = torch.tensor(REGION_OF, dtype=torch.uint8, device=self._device)

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Labels pictures, `batch` at a time."""
        labels: list[Image | None] = []
        for some, meshes in batches(pictures, points, self._batch):
            maps = self._label(np.stack(some), np.stack([alignment(mesh) for mesh in meshes]))
            labels += [checked(*one) for one in zip(maps, meshes, strict=True)]
        return labels

    def _label(self, pictures: Image, transforms: Floats) -> Image:
        import torch
        from torch.nn.functional import grid_sample

        with torch.inference_mode():
            a, b = torch.from_numpy(transforms).to(self._device).unbind(1)
            colours = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float() / 255
            warped = grid_sample(colours, self._to_network(a, b), mode="bilinear", align_corners=False)
            logits = grid_sample(self._logits(warped), self._from_network(a, b), mode="bilinear", align_corners=False)
            return self._regions[logits.argmax(1)].cpu().numpy()

    def _logits(self, colours: "torch.Tensor") -> "torch.Tensor":
        import torch

        # The optimiser of TorchScript rewrites a network after its first calls, which changes floats.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            out = self._net(colours)
        logits: torch.Tensor = out[0] if isinstance(out, (tuple, list)) else out
        return logits.float()

    def _to_network(self, a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
        """Where in the picture each pixel of the network's input comes from: (B, 448, 448, 2), edges at -1 and 1."""
        import torch

        aligned = torch.complex(self._axis[None, :].expand(SIDE, -1), self._axis[:, None].expand(-1, SIDE))
        pixels = (aligned - b[:, None, None]) / a[:, None, None]
        return (torch.view_as_real(pixels) + 0.5) * (2 / self._view.side) - 1

    def _from_network(self, a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
        """Where in the network's output each pixel of the crop comes from: (B, size, size, 2), edges at -1 and 1."""
        import torch

        size = self._view.size
        pixels = torch.complex(self._pixels[None, :].expand(size, -1), self._pixels[:, None].expand(-1, size))
        return _squeezed(torch.view_as_real(a[:, None, None] * pixels + b[:, None, None]))

    def _try(self, path: Path) -> None:
        import torch

        contract = f"{len(CLASSES)} LaPa classes from (B, 3, {SIDE}, {SIDE})"
        try:
            with torch.inference_mode():
                logits = self._logits(torch.zeros(1, 3, SIDE, SIDE, device=self._device))
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise MarlinError(f"{KEY}: {path} does not give {contract}: {reason}") from error
        if logits.ndim != 4 or logits.shape[:2] != (1, len(CLASSES)):
            raise MarlinError(f"{KEY}: {path} gives {tuple(logits.shape)}, not logits of {contract}")


def alignment(points: Floats) -> Floats:
    """Similarity that brings the five points of a mesh (468, 2) to their place, by least squares.

    Returns:
        (2,) complex64 a and b: pixel x + iy goes to a (x + iy) + b in the aligned square.
    """
    source, target = (pairs @ np.array([1, 1j]) for pairs in (five_points(points).astype(np.float64), ALIGNED))
    centred = source - source.mean()
    a = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    return np.array([a, target.mean() - a * source.mean()], np.complex64)


def _squeezed(places: "torch.Tensor") -> "torch.Tensor":
    """Coordinates of the aligned square as coordinates of the network's input."""
    beyond = (places.abs() - (1 - WARP)) / WARP
    return places.where(beyond <= 0, places.sign() * (beyond.tanh() * WARP + 1 - WARP))


def _unsqueezed(places: "torch.Tensor") -> "torch.Tensor":
    """The inverse of `_squeezed`, up to REACH."""
    beyond = (places.abs() - (1 - WARP)) / WARP
    return places.where(beyond <= 0, places.sign() * (beyond.clamp(0, REACH).atanh() * WARP + 1 - WARP))
