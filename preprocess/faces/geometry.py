"""Boxes and regions of interest. Boxes are (x0, y0, x1, y1) in pixels of the upright source frame."""

import numpy as np

from preprocess.arrays import Floats


def box_of(points: Floats) -> Floats:
    """Bounding box (4,) of points (N, 2)."""
    # By column: numpy takes ten times as long over rows of two.
    x, y = points.T
    return np.array([x.min(), y.min(), x.max(), y.max()], np.float32)


def iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes; 0 for empty ones."""
    shared = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    total = _area(a) + _area(b) - shared
    return shared / total if total > 0 else 0.0


def _area(box: Floats) -> float:
    x0, y0, x1, y1 = map(float, box)
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def larger_side(box: Floats) -> float:
    """Larger side of a box in pixels."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def distance(a: Floats, b: Floats) -> float:
    """Distance of two boxes' centres, in sides of the larger one."""
    apart = float(np.linalg.norm((a[:2] + a[2:] - b[:2] - b[2:]) / 2))
    return apart / max(larger_side(a), larger_side(b), 1.0)


def squares(boxes: Floats) -> Floats:
    """Boxes (N, 4) as squares (N, 3): centre x, centre y, larger side."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([centres, sides], axis=1)
