"""Face parsing: seven regions a frame, from the mesh, the person mask and a hair backend."""

from typing import Protocol

import numpy as np

from preprocess.arrays import Floats, Image, Mask
from preprocess.hair import HairBackend
from preprocess.landmarks import draw_parts, face_outline, fill
from preprocess.mesh import PersonNet
from preprocess.regions import BACKGROUND, HAIR, SKIN

PERSON = 0.5
# A parse that finds less skin than this share of the picture's centre is no parse.
MIN_SKIN_SHARE = 0.02


class Parser(Protocol):
    """A face parsing backend."""

    name: str

    def __call__(self, rgb: Image, points: Floats) -> Image | None:
        """Label map (H, W) of a picture (H, W, 3) of a head and its surroundings, or None when it fails."""
        ...


class LandmarkParser:
    """Skin is the mesh's oval with a raised forehead, cut by the person mask; parts are polygons of the mesh."""

    def __init__(self, person: PersonNet, hair: HairBackend) -> None:
        self._person, self._hair = person, hair
        self.name = f"landmarks+{hair.name}"

    def __call__(self, rgb: Image, points: Floats) -> Image | None:
        """Labels a picture whose mesh (468, 2) is known in its own pixels."""
        person: Mask = self._person(rgb) > PERSON
        hair = self._hair(rgb, points, person)
        shape = rgb.shape[0], rgb.shape[1]
        outline = fill(face_outline(points), shape)
        labels = np.full(shape, BACKGROUND, np.uint8)
        skin = outline & person
        if skin.sum() < MIN_SKIN_SHARE * skin.size:
            return None
        labels[skin] = SKIN
        labels[hair] = HAIR
        draw_parts(labels, points)
        return labels
