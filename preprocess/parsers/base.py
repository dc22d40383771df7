"""What all face parsing backends share: the picture they look at, what they give back, and when a parse has failed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.parsers.polygons import face_outline
from preprocess.regions import MOUTH, SKIN

Device = Literal["cpu", "cuda"]

CONTEXT = 2.0
"""Side of the picture that is parsed, in sides of the face: hair and shoulders help the networks."""

# A parse that finds less of the face than this share of the mesh's outline is no parse.
MIN_FACE = 0.1


class Parser(Protocol):
    """A face parsing backend. A call depends on its arguments alone: no state passes from one to the next."""

    @property
    def name(self) -> str:
        """Its name, as it stands in every sample."""
        ...

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Labels pictures of a head and its surroundings.

        Args:
            pictures: RGB (P, P, 3), P = size + 2 pad of the backend's `View`.
            points: mesh (468, 2) of the face to label, in pixels of its picture.

        Returns:
            For each picture the label map (size, size) of its inside, or None where parsing failed.
        """
        ...


@dataclass(frozen=True)
class View:
    """A crop and the context around it: pictures of `size` + 2 `pad` pixels a side, whose inside is the crop."""

    size: int
    pad: int

    @classmethod
    def of(cls, cfg: PreprocessConfig) -> "View":
        """The view of a configuration."""
        return cls(cfg.size, max(0, round(cfg.size * (CONTEXT / (1 + 2 * cfg.margin) - 1) / 2)))

    @property
    def side(self) -> int:
        """Side of the picture in pixels."""
        return self.size + 2 * self.pad

    def inside(self, picture: Image) -> Image:
        """The crop (size, size, …) of a picture (side, side, …)."""
        return picture[self.pad : self.pad + self.size, self.pad : self.pad + self.size]

    def project(self, plane: Floats) -> Floats:
        """A float map (n, n) of the whole picture at a network's resolution, resampled to the crop (size, size)."""
        scale = plane.shape[0] / self.side
        shift = (self.pad + 0.5) * scale - 0.5
        matrix = np.array([[scale, 0, shift], [0, scale, shift]])
        return np.asarray(
            cv2.warpAffine(
                plane,
                matrix,
                (self.size, self.size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        )


def enough_face(pixels: int, outline: Floats) -> bool:
    """Whether so many pixels of a face are enough, given the outline (N, 2) of its skin in the same picture."""
    return pixels >= MIN_FACE * cv2.contourArea(outline.astype(np.float32))


def checked(labels: Image, points: Floats) -> Image | None:
    """A label map, or None if it holds too little of a face to be a parse."""
    found = int(np.count_nonzero((labels >= SKIN) & (labels <= MOUTH)))
    return labels if enough_face(found, face_outline(points)) else None


def batches(
    pictures: Sequence[Image], points: Sequence[Floats], size: int | None
) -> Iterator[tuple[Sequence[Image], Sequence[Floats]]]:
    """Both sequences in parts of `size`; None is one part."""
    step = size or len(pictures) or 1
    for first in range(0, len(pictures), step):
        yield pictures[first : first + step], points[first : first + step]
