"""Parser `landmarks`: regions from the mesh, the person mask and a hair backend."""

from collections.abc import Sequence

import numpy as np

from preprocess.arrays import Floats, Image
from preprocess.faces.mesh import PersonNet
from preprocess.parsers.base import View, enough_face
from preprocess.parsers.hair import HairBackend
from preprocess.parsers.polygons import draw_parts, face_outline, fill
from preprocess.regions import BACKGROUND, HAIR, SKIN

PERSON = 0.5


class LandmarkParser:
    """Skin is the mesh's oval with a raised forehead, cut by the person mask; parts are polygons of the mesh."""

    def __init__(self, person: PersonNet, hair: HairBackend, view: View) -> None:
        self._person, self._hair, self._view = person, hair, view
        self.name = f"landmarks+{hair.name}"

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Labels pictures one by one: its networks take one, and small maps stay in the processor's cache."""
        return [self._parse(*one) for one in zip(pictures, points, strict=True)]

    def _parse(self, picture: Image, points: Floats) -> Image | None:
        view = self._view
        presence = self._person(picture)
        person = view.project(presence) > PERSON
        placed = points - np.float32(view.pad)
        labels = np.full(person.shape, BACKGROUND, np.uint8)
        outline = face_outline(placed)
        skin = fill(outline, (view.size, view.size)) & person
        if not enough_face(int(np.count_nonzero(skin)), outline):
            return None
        labels[skin] = SKIN
        labels[(view.project(self._hair(picture, points, presence)) > 0) & person] = HAIR
        draw_parts(labels, placed)
        return labels
