"""Reconstructions as a picture, to look at while a training goes on.

Shapes: B clips, N cubes, M hidden ones, P values of a cube, C channels, T frames, H×W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.cubes import unpatchify
from train.model import Geometry
from train.objective import denormalize_cubes
from train.sizes import CHANNELS
from train.step import Masked

_GREY = 0.5
_GAP = 3


@torch.no_grad()
def reconstruction_picture(
    masked: Masked, predicted_BMP: Tensor, geometry: Geometry, *, normalized: bool, clips: int = 2
) -> NDArray[np.uint8]:
    """Original, what the encoder saw, and that with the reconstruction: three rows a clip, a column a tubelet.

    Args:
        masked: the clips.
        predicted_BMP: reconstruction of their hidden cubes.
        geometry: clip and cube.
        normalized: the reconstruction is of `train.normalize_target`; the true mean and spread of each cube undo that.
        clips: how many of them are drawn.

    Returns:
        RGB (rows, columns, 3).
    """
    cubes_BNP = masked.cubes_BNP[:clips].float()
    index_BMP = masked.hidden_BM[:clips, :, None].expand(-1, -1, geometry.cube)
    guess_BMP = predicted_BMP[:clips].float()
    if normalized:
        guess_BMP = denormalize_cubes(guess_BMP, cubes_BNP.gather(1, index_BMP))
    rows = (cubes_BNP, cubes_BNP.scatter(1, index_BMP, _GREY), cubes_BNP.scatter(1, index_BMP, guess_BMP))
    drawn = [_first_frames(row_BNP, geometry) for row_BNP in rows]
    lines = [line for of_clip in zip(*drawn, strict=True) for line in of_clip]
    gap = np.full((_GAP, lines[0].shape[1], CHANNELS), 255, np.uint8)
    return np.concatenate([part for line in lines for part in (gap, line)][1:])


def _first_frames(cubes_BNP: Tensor, geometry: Geometry) -> list[NDArray[np.uint8]]:
    """The first frames of the tubelets of each clip, side by side."""
    shape = (CHANNELS, geometry.frames, geometry.size, geometry.size)
    clips_BCTHW = unpatchify(cubes_BNP, geometry.tubelet, geometry.patch, shape)[:, :, :: geometry.tubelet]
    lines_BHLC = clips_BCTHW.permute(0, 3, 2, 4, 1).flatten(2, 3).clamp(0, 1).mul(255).round()
    return list(lines_BHLC.to(torch.uint8).cpu().numpy())
