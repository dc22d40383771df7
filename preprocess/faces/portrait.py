"""Small grey pictures of a tracked face: what sharpness, likeness and fingerprints are measured on."""

import cv2
import numpy as np

from preprocess.arrays import Floats, Image

CONTEXT = 1.5
"""Side of a portrait in sides of the face's box."""
SIDE = 96
"""Side of a portrait in pixels; the face itself fills the inner `FACE`."""
FACE = 64

_FEATURES = 16
_FLAT = 1e-3


def portrait(rgb: Image, box: Floats) -> Image:
    """Portrait (96, 96), grey, of the face in a box; the frame's edge is drawn out."""
    x, y = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    side = max(2, round(CONTEXT * float(max(box[2] - box[0], box[3] - box[1]))))
    left, top = round(x - side / 2), round(y - side / 2)
    seen = rgb[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    if 0 in seen.shape:
        return np.zeros((SIDE, SIDE), np.uint8)
    if seen.shape[:2] != (side, side):
        over, beside = max(0, -top), max(0, -left)
        below, behind = side - over - seen.shape[0], side - beside - seen.shape[1]
        seen = np.asarray(cv2.copyMakeBorder(seen, over, below, beside, behind, cv2.BORDER_REPLICATE))
    # Every n-th pixel, then bilinear, then averages of 2×2: an eighth of the time of averaging all pixels.
    step = max(1, side // (2 * SIDE))
    grey = cv2.cvtColor(np.ascontiguousarray(seen[::step, ::step]), cv2.COLOR_RGB2GRAY)
    twice = cv2.resize(grey, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(twice, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def face_of(picture: Image) -> Image:
    """The face alone (64, 64) of a portrait."""
    edge = (SIDE - FACE) // 2
    return picture[edge : edge + FACE, edge : edge + FACE]


def features(picture: Image) -> Floats:
    """What `likeness` compares: the face at 16×16, mean 0, length 1; all zero for a flat one."""
    small = cv2.resize(face_of(picture), (_FEATURES, _FEATURES), interpolation=cv2.INTER_AREA)
    flat = np.asarray(small, np.float32).ravel()
    flat = flat - flat.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > _FLAT else np.zeros_like(flat)


def likeness(a: Floats, b: Floats) -> float:
    """Correlation of two faces, -1 to 1; 1 where one of them is flat, which says nothing."""
    return float(a @ b) if a.any() and b.any() else 1.0
