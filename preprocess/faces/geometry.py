"""Boxes and regions of interest. Boxes are (x0, y0, x1, y1) in pixels of the upright source frame."""

import numpy as np

from preprocess.arrays import Floats


def box_of(points: Floats) -> Floats:
    """Bounding box (4,) of points (N, 2)."""
    box: Floats = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)
    return box


def iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes; 0 for empty ones."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    total = float(np.prod(np.maximum(a[2:] - a[:2], 0.0)) + np.prod(np.maximum(b[2:] - b[:2], 0.0))) - shared
    return shared / total if total > 0 else 0.0


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
