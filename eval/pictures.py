"""Pictures as arrays: region overlays, masks, heat maps, and original / masked / reconstructed frames.

All images are uint8 RGB; a column stacks several of them so that a page can lay columns out as wide as its screen.
"""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.regions import REGIONS, overlay

Image = NDArray[np.uint8]

HIDDEN = 128
"""Grey level of hidden patches."""

_GAP = 3
_QUALITY = 82


def grid_labels(grid: Image, size: int) -> Image:
    """A label map (size, size) from the region bitmask of each patch (G, G); of several regions the last one shows."""
    labels = np.zeros(grid.shape, np.uint8)
    for region in range(len(REGIONS)):
        labels[(grid >> region) & 1 == 1] = region
    return labels.repeat(size // grid.shape[0], axis=0).repeat(size // grid.shape[1], axis=1)


def mask_frame(frame: Image, visible: NDArray[np.bool_], ghost: float = 0.0) -> Image:
    """Grey out the patches that are not visible.

    Args:
        frame: (S, S, 3).
        visible: (G, G), G divides S.
        ghost: how much of the picture shines through the grey, 0 to 1.
    """
    step = frame.shape[0] // visible.shape[0]
    seen = visible.repeat(step, axis=0).repeat(step, axis=1)[..., None]
    grey = np.rint(frame * ghost + HIDDEN * (1 - ghost)).astype(np.uint8)
    return np.where(seen, frame, grey)


def heat_frame(frame: Image, heat: NDArray[np.float32], strength: float = 0.5) -> Image:
    """A frame (S, S, 3) under the colours of a map (S, S) of values in [0, 1], from dark blue over green to red."""
    colours = cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    mixed: Image = np.rint(frame * (1 - strength) + colours * strength).astype(np.uint8)
    return mixed


def column(images: Sequence[Image], width: int) -> Image:
    """Images of one size above each other, scaled to a width, with a thin white line between them."""
    scaled = [cv2.resize(image, (width, width), interpolation=cv2.INTER_AREA) for image in images]
    line = np.full((_GAP, width, 3), 255, np.uint8)
    stacked = [part for image in scaled for part in (line, image)][1:]
    return np.concatenate(stacked).astype(np.uint8)


def overlay_columns(frames: Sequence[Image], labels: Sequence[Image], width: int) -> list[Image]:
    """Each frame above the same frame tinted by its regions."""
    pairs = zip(frames, labels, strict=True)
    return [column([frame, overlay(frame, regions)], width) for frame, regions in pairs]


def mask_columns(frames: Sequence[Image], visible_TGG: NDArray[np.bool_], width: int) -> list[Image]:
    """Each tubelet's first frame with its hidden patches greyed, faintly shining through."""
    pairs = zip(frames, visible_TGG, strict=True)
    return [column([mask_frame(frame, visible, ghost=0.18)], width) for frame, visible in pairs]


def heat_columns(frames: Sequence[Image], heat_TSS: NDArray[np.float32], width: int) -> list[Image]:
    """Each frame under its heat map."""
    pairs = zip(frames, heat_TSS, strict=True)
    return [column([heat_frame(frame, heat)], width) for frame, heat in pairs]


def data_uri(image: Image) -> str:
    """An image as a JPEG data URI."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
