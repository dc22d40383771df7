"""The seven facial regions: their order, their colours, the grid of patches that training reads."""

import numpy as np

from preprocess.arrays import Image

REGIONS: tuple[str, ...] = ("background", "skin", "left-eye", "right-eye", "nose", "mouth", "hair")
"""Region names; the position is the value in a label map. Left and right are the person's own."""

BACKGROUND, SKIN, LEFT_EYE, RIGHT_EYE, NOSE, MOUTH, HAIR = range(len(REGIONS))

COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (255, 205, 148),
    (64, 132, 255),
    (48, 206, 110),
    (255, 196, 0),
    (232, 60, 84),
    (160, 86, 214),
)
"""RGB colour of each region in overlays."""


def patch_grid(labels: Image, patch: int) -> Image:
    """Which regions touch each patch.

    Args:
        labels: (F, S, S) uint8 label maps, values index `REGIONS`.
        patch: side of a patch in pixels; divides S.

    Returns:
        (F, S/patch, S/patch) uint8, bit r set where region r touches the patch.

    Raises:
        ValueError: patch does not divide S, or a label is not a region.
    """
    frames, height, width = labels.shape
    if height % patch or width % patch:
        raise ValueError(f"label maps of {height}x{width} can't be cut into patches of {patch}")
    if labels.size and int(labels.max()) >= len(REGIONS):
        raise ValueError(f"label {int(labels.max())} is not one of the {len(REGIONS)} regions")
    bits = np.left_shift(np.uint8(1), labels)
    cells = bits.reshape(frames, height // patch, patch, width // patch, patch)
    grid: Image = np.bitwise_or.reduce(np.bitwise_or.reduce(cells, axis=4), axis=2)
    return grid


def overlay(frame: Image, labels: Image, strength: float = 0.45) -> Image:
    """Frame (H, W, 3) RGB with its regions (H, W) tinted; the background keeps its colours."""
    tint = np.asarray(COLOURS, np.float32)[labels]
    alpha = np.where(labels == BACKGROUND, 0.0, strength)[..., None].astype(np.float32)
    mixed: Image = np.rint(frame * (1 - alpha) + tint * alpha).astype(np.uint8)
    return mixed
