"""Clips as sequences of cubes, the tokens of the video transformer.

Shapes: B clips, C channels, T frames, H×W pixels, N cubes, P values of a cube.
Cubes are ordered time first, then rows, then columns; inside a cube, channel, time, row, column.
"""

from torch import Tensor


def patchify(clips_BCTHW: Tensor, tubelet: int, patch: int) -> Tensor:
    """Cut clips into cubes of ``tubelet × patch × patch``.

    Args:
        clips_BCTHW: clips whose frames, height and width are multiples of the cube's.
        tubelet: frames of a cube.
        patch: side of a cube in pixels.

    Returns:
        (B, N, P) with N = T/tubelet · H/patch · W/patch and P = C · tubelet · patch².

    Raises:
        ValueError: the cube does not divide the clip.
    """
    b, c, t, h, w = clips_BCTHW.shape
    if t % tubelet or h % patch or w % patch:
        raise ValueError(f"a clip of {t}×{h}×{w} can't be cut into cubes of {tubelet}×{patch}×{patch}")
    grid = clips_BCTHW.reshape(b, c, t // tubelet, tubelet, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * tubelet * patch * patch)


def unpatchify(cubes_BNP: Tensor, tubelet: int, patch: int, shape_CTHW: tuple[int, int, int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, P) back to clips of ``shape_CTHW``."""
    c, t, h, w = shape_CTHW
    grid = cubes_BNP.reshape(-1, t // tubelet, h // patch, w // patch, c, tubelet, patch, patch)
    return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, c, t, h, w)
