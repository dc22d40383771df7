"""Parser `bisenet`: a BiSeNet trained on CelebAMask-HQ, as ONNX."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.parsers.base import Device, View, batches, checked
from preprocess.parsers.polygons import draw_parts, five_points
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN
from preprocess.sessions import onnx_session

SIDE = 512
KEY = "preprocess.models.bisenet"
# ImageNet's, in RGB.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

# CelebAMask-HQ's classes in the order of face-parsing.PyTorch.
CLASSES = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
# Not regions: an eye or brow of either side, and glasses. The mesh tells what they are.
EYE, GLASSES = 254, 255
REGION_OF = np.array(
    [
        BACKGROUND, SKIN, EYE, EYE, EYE, EYE, GLASSES, BACKGROUND, BACKGROUND, BACKGROUND,
        NOSE, MOUTH, MOUTH, MOUTH, BACKGROUND, BACKGROUND, BACKGROUND, HAIR, BACKGROUND,
    ],
    np.uint8,
)  # fmt: skip


class BisenetParser:
    """BiSeNet (RGB, ImageNet normalisation, 512×512 in; logits of 19 classes out, auxiliary outputs ignored)."""

    name = "bisenet"

    def __init__(self, path: Path, view: View, device: Device = "cpu", batch: int | None = None) -> None:
        """Loads and tries the network.

        Args:
            path: ONNX file.
            view: what pictures show.
            device: where it runs; the GPU only where onnxruntime has CUDA.
            batch: pictures of one network call; None takes all that a call of the parser brings. A file with a fixed
                batch of one takes one.

        Raises:
            MarlinError: not such a network.
        """
        self._net, self._view = onnx_session(path, KEY, device), view
        entry = self._net.get_inputs()[0]
        self._input = entry.name
        fixed = isinstance(entry.shape[0], int) if entry.shape else False
        self._batch = 1 if fixed else batch
        self._output = self._try(path)

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Labels pictures, `batch` at a time."""
        labels: list[Image | None] = []
        for some, meshes in batches(pictures, points, self._batch):
            [logits] = self._net.run([self._output], {self._input: np.stack([_normalised(one) for one in some])})
            labels += [self._label(*one) for one in zip(logits, meshes, strict=True)]
        return labels

    def _label(self, logits: Floats, points: Floats) -> Image | None:
        planes = np.stack([self._view.project(plane) for plane in logits])
        labels = REGION_OF[planes.argmax(0)]
        placed = points - np.float32(self._view.pad)
        _name_glasses(labels, placed)
        _name_eyes(labels, placed)
        return checked(labels, points)

    def _try(self, path: Path) -> str:
        """Name of the output that holds the result: the first of full resolution."""
        names = [output.name for output in self._net.get_outputs()]
        try:
            outputs = self._net.run(names, {self._input: np.zeros((1, 3, SIDE, SIDE), np.float32)})
        except Exception as error:  # onnxruntime's own exception classes have no public name
            reason = str(error).strip().splitlines()[0]
            raise MarlinError(f"{KEY}: {path} does not take (1, 3, {SIDE}, {SIDE}) float32: {reason}") from error
        shapes = [np.shape(output) for output in outputs]
        wanted = (1, len(CLASSES), SIDE, SIDE)
        if wanted not in shapes:
            raise MarlinError(f"{KEY}: {path} gives {shapes}, none of them the logits {wanted} of CelebAMask-HQ")
        return str(names[shapes.index(wanted)])


def _normalised(picture: Image) -> Floats:
    resized = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return ((resized / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1)


def _name_glasses(labels: Image, points: Floats) -> None:
    """Glasses become what they cover: an eye or brow where the mesh has one, else skin."""
    glasses = labels == GLASSES
    if glasses.any():
        parts = np.full(labels.shape, SKIN, np.uint8)
        draw_parts(parts, points)
        labels[glasses] = np.where(np.isin(parts, (LEFT_EYE, RIGHT_EYE)), parts, SKIN)[glasses]


def _name_eyes(labels: Image, points: Floats) -> None:
    """Each eye or brow goes to the side of the face that it is on: the nearer eye of the mesh."""
    right, left = five_points(points)[:2]
    rows, columns = np.nonzero(labels == EYE)
    beyond = (np.stack([columns, rows], axis=1) - (left + right) / 2) @ (left - right)
    labels[rows, columns] = np.where(beyond > 0, LEFT_EYE, RIGHT_EYE)
