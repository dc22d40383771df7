"""Hair: a segmentation network when its file is configured, else a colour and geometry heuristic.

Which of the two made a dataset is part of its parser's name.
"""

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image, Mask
from preprocess.parsers.polygons import FACE_OVAL, draw_parts, face_axes, face_outline, fill
from preprocess.sessions import onnx_session

NETWORK_SIDE = 512


class HairBackend(Protocol):
    """Finds hair in a picture of a head and its surroundings."""

    name: str

    def __call__(self, rgb: Image, points: Floats, presence: Floats) -> Floats:
        """Where hair is.

        Args:
            rgb: picture (P, P, 3).
            points: mesh (468, 2) in its pixels.
            presence: probability (n, n) of a person, a map of the whole picture.

        Returns:
            A map (m, m) of the whole picture at the backend's own resolution, positive where hair is.
        """
        ...


class HairNetwork:
    """MediaPipe's hair segmentation as ONNX: (1, 4, 512, 512) RGB + previous mask in, 2 logits a pixel out."""

    name = "hair:network"

    def __init__(self, path: Path) -> None:
        # The same floats everywhere: this small network runs on the CPU even where there is a GPU.
        self._net = onnx_session(path, "preprocess.models.hair", "cpu")
        entry = self._net.get_inputs()[0]
        if list(entry.shape) != [1, 4, NETWORK_SIDE, NETWORK_SIDE]:
            raise MarlinError(f"preprocess.models.hair: {path} takes {entry.shape}, not (1, 4, 512, 512)")
        self._input = entry.name
        # The previous mask (channel 3) stays zero: frames are labelled one by one.
        self._planes = np.zeros((1, 4, NETWORK_SIDE, NETWORK_SIDE), np.float32)

    def __call__(self, rgb: Image, points: Floats, presence: Floats) -> Floats:
        """Logit of hair against anything else (512, 512)."""
        resized = cv2.resize(rgb, (NETWORK_SIDE, NETWORK_SIDE), interpolation=cv2.INTER_AREA)
        for plane, channel in zip(self._planes[0, :3], cv2.split(resized), strict=True):
            np.divide(channel, np.float32(255), out=plane)
        other, hair = self._net.run(None, {self._input: self._planes})[0][0]
        return np.asarray(hair - other)


# The heuristic, in heights of the face: how far above it and beside it hair is looked for, and how far down.
REACH_UP, REACH_SIDE, REACH_DOWN = 0.65, 0.42, 0.5
WORK_SIDE = 224
MIN_SKIN_PIXELS = 50
# Squared distance in units of the skin's own spread (two lightness-damped colour axes and lightness) that is not skin.
NOT_SKIN = 9.0
# Shading moves lightness far and colour little: floors keep smooth faces from rejecting their own shadows.
SPREAD_FLOORS = (14.0, 3.5, 4.5)


class HairHeuristic:
    """Pixels of the person around the face that differ from the face's own skin colour and hang together."""

    name = "hair:heuristic"

    def __call__(self, rgb: Image, points: Floats, presence: Floats) -> Floats:
        """Hair as 1 and anything else as -1 (224, 224); plausible for people whose hair and skin differ in colour."""
        side = (WORK_SIDE, WORK_SIDE)
        small = np.asarray(cv2.resize(rgb, side, interpolation=cv2.INTER_AREA), np.uint8)
        person = np.asarray(cv2.resize(presence, side, interpolation=cv2.INTER_LINEAR)) > 0.5
        hair = _coloured_unlike_skin(small, points * (WORK_SIDE / rgb.shape[0]), person)
        return np.where(hair, np.float32(1), np.float32(-1))


def _coloured_unlike_skin(rgb: Image, points: Floats, person: Mask) -> Mask:
    shape = rgb.shape[0], rgb.shape[1]
    oval = fill(points[FACE_OVAL], shape)
    parts = np.zeros(shape, np.uint8)
    draw_parts(parts, points)
    skin = oval & person & (parts == 0)
    if np.count_nonzero(skin) < MIN_SKIN_PIXELS:
        return np.zeros(shape, bool)
    lab = np.asarray(cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 1.2), cv2.COLOR_RGB2LAB), np.uint8)
    place = _around_face(points, shape) & person & ~oval
    return _joined(place & (_distance(lab, skin) > NOT_SKIN), points)


def _distance(lab: Image, skin: Mask) -> Floats:
    """Squared distance (H, W) of each pixel from the skin's colours, robust against beards and highlights."""
    total = np.zeros(skin.shape, np.float32)
    levels = np.arange(256.0)
    for channel, floor in zip(cv2.split(lab), SPREAD_FLOORS, strict=True):
        counts = np.bincount(channel[skin], minlength=256)
        deviation = np.abs(levels - _median(levels, counts))
        spread = max(1.4826 * _median(deviation, counts), floor)
        total += cv2.LUT(channel, ((deviation / spread) ** 2).astype(np.float32))
    return total


def _median(values: Floats, counts: NDArray[np.integer[Any]]) -> float:
    """Median of values that occur `counts` times each."""
    order = np.argsort(values, kind="stable")
    ranks = np.cumsum(counts[order])
    middle = (ranks[-1] - 1) // 2, ranks[-1] // 2
    return float(values[order[np.searchsorted(ranks, middle, side="right")]].mean())


def _around_face(points: Floats, shape: tuple[int, int]) -> Mask:
    middle, up, height = face_axes(points)
    across = np.array([-up[1], up[0]])
    half_width = float(np.abs((points[FACE_OVAL] - middle) @ across).max())
    above = _along(up, middle, shape) / height
    beside = np.abs(_along(across, middle, shape))
    return np.asarray((above > -REACH_DOWN) & (above < 0.5 + REACH_UP) & (beside < half_width + REACH_SIDE * height))


def _along(direction: Floats, origin: Floats, shape: tuple[int, int]) -> Floats:
    """Distance (H, W) of each pixel from a point along a direction."""
    columns = (np.arange(shape[1], dtype=np.float32) - origin[0]) * direction[0]
    rows = (np.arange(shape[0], dtype=np.float32) - origin[1]) * direction[1]
    return np.asarray(rows[:, None] + columns, np.float32)


def _joined(candidates: Mask, points: Floats) -> Mask:
    """Keeps the pieces that touch the upper half of the face's outline."""
    opened = cv2.morphologyEx(candidates.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, pieces = cv2.connectedComponents(opened, connectivity=4)
    middle, up, height = face_axes(points)
    shape = candidates.shape[0], candidates.shape[1]
    rim = np.asarray(cv2.dilate(fill(face_outline(points), shape).view(np.uint8), np.ones((7, 7), np.uint8)))
    upper = _along(up, middle, shape) > 0.1 * height
    touching = np.bincount(pieces[(rim > 0) & upper], minlength=count)
    keep = touching >= 12
    keep[0] = False
    return np.asarray(keep[pieces])
