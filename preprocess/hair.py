"""Hair: a segmentation network when its file is configured, else a colour and geometry heuristic.

Which of the two made a dataset is part of its parser's name.
"""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image, Mask
from preprocess.landmarks import FACE_OVAL, draw_parts, face_axes, face_outline, fill

NETWORK_SIDE = 512


class HairBackend(Protocol):
    """Finds hair in a picture of a head and its surroundings."""

    name: str

    def __call__(self, rgb: Image, points: Floats, person: Mask) -> Mask:
        """Hair (H, W) in a picture (H, W, 3), given mesh points in its pixels and the person mask."""
        ...


class HairNetwork:
    """MediaPipe's hair segmentation as ONNX: (1, 4, 512, 512) RGB + previous mask in, 2 logits a pixel out."""

    name = "hair:network"

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._net = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception classes have no public name
            raise MarlinError(f"preprocess.models.hair: {path} is not an ONNX file: {error}") from error
        entry = self._net.get_inputs()[0]
        if list(entry.shape) != [1, 4, NETWORK_SIDE, NETWORK_SIDE]:
            raise MarlinError(f"preprocess.models.hair: {path} takes {entry.shape}, not (1, 4, 512, 512)")
        self._input = entry.name

    def __call__(self, rgb: Image, points: Floats, person: Mask) -> Mask:
        """Hair that is part of the person."""
        side = (NETWORK_SIDE, NETWORK_SIDE)
        planes = np.zeros((1, 4, *side), np.float32)
        planes[0, :3] = cv2.resize(rgb, side, interpolation=cv2.INTER_AREA).transpose(2, 0, 1) / np.float32(255)
        logits = self._net.run(None, {self._input: planes})[0][0]
        margin = cv2.resize(logits[1] - logits[0], rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray((margin > 0) & person)


# The heuristic, in heights of the face: how far above it and beside it hair is looked for, and how far down.
REACH_UP, REACH_SIDE, REACH_DOWN = 0.65, 0.42, 0.5
WORK_SIDE = 224
MIN_SKIN_PIXELS = 50
# Squared distance in units of the skin's own spread (two lightness-damped colour axes and lightness) that is not skin.
NOT_SKIN = 9.0


class HairHeuristic:
    """Pixels of the person around the face that differ from the face's own skin colour and hang together."""

    name = "hair:heuristic"

    def __call__(self, rgb: Image, points: Floats, person: Mask) -> Mask:
        """Hair, plausible for people whose hair and skin differ in colour."""
        shape = rgb.shape[:2]
        scale = WORK_SIDE / shape[0]
        small = np.asarray(cv2.resize(rgb, (WORK_SIDE, WORK_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        inside = cv2.resize(person.astype(np.uint8), (WORK_SIDE, WORK_SIDE), interpolation=cv2.INTER_NEAREST) > 0
        hair = _coloured_unlike_skin(small, points * scale, inside)
        return np.asarray(cv2.resize(hair.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0)


def _coloured_unlike_skin(rgb: Image, points: Floats, person: Mask) -> Mask:
    shape = rgb.shape[:2]
    oval = fill(points[FACE_OVAL], shape)
    parts = np.zeros(shape, np.uint8)
    draw_parts(parts, points)
    skin = oval & person & (parts == 0)
    if int(skin.sum()) < MIN_SKIN_PIXELS:
        return np.zeros(shape, bool)
    lab = np.asarray(cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 1.2), cv2.COLOR_RGB2LAB)).astype(np.float32)
    place = _around_face(points, shape) & person & ~oval
    candidates = place & (_distance(lab, lab[skin]) > NOT_SKIN)
    return _joined(candidates, points)


def _distance(lab: Floats, skin: Floats) -> Floats:
    """Squared distance (H, W) of each pixel from the skin colours (N, 3), robust against beards and highlights."""
    middle = np.median(skin, axis=0)
    spread = 1.4826 * np.median(np.abs(skin - middle), axis=0)
    # Shading moves lightness far and colour little: floors keep smooth faces from rejecting their own shadows.
    return np.asarray((((lab - middle) / np.maximum(spread, (14.0, 3.5, 4.5))) ** 2).sum(axis=-1))


def _around_face(points: Floats, shape: tuple[int, ...]) -> Mask:
    middle, up, height = face_axes(points)
    across = np.array([-up[1], up[0]])
    half_width = float(np.abs((points[FACE_OVAL] - middle) @ across).max())
    rows, columns = np.indices(shape, dtype=np.float32)
    offset_x, offset_y = columns - middle[0], rows - middle[1]
    above = (offset_x * up[0] + offset_y * up[1]) / height
    beside = np.abs(offset_x * across[0] + offset_y * across[1])
    return np.asarray((above > -REACH_DOWN) & (above < 0.5 + REACH_UP) & (beside < half_width + REACH_SIDE * height))


def _joined(candidates: Mask, points: Floats) -> Mask:
    """Keeps the pieces that touch the upper half of the face's outline."""
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.morphologyEx(candidates.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, pieces = cv2.connectedComponents(opened, connectivity=4)
    middle, up, height = face_axes(points)
    rim = np.asarray(
        cv2.dilate(fill(face_outline(points), candidates.shape).astype(np.uint8), np.ones((7, 7), np.uint8))
    )
    rows, columns = np.indices(candidates.shape, dtype=np.float32)
    upper = (columns - middle[0]) * up[0] + (rows - middle[1]) * up[1] > 0.1 * height
    touching = np.bincount(pieces[(rim > 0) & upper], minlength=count)
    keep = touching >= 12
    keep[0] = False
    return np.asarray(keep[pieces])
