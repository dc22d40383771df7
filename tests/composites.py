"""Videos composed of real heads that move as a test says: who is where in each frame is known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.decode.video import read_frames
from preprocess.faces.detect import Detection
from preprocess.faces.track import Track

Frames = NDArray[np.uint8]
Place = tuple[float, float]
Detect = Callable[[Frames], list[Detection]]

SIDE = 200
"""Height and width of a head's picture; the face is about half of it."""


@dataclass(frozen=True)
class Actor:
    """A head (F, S, S, 3) and where its centre is in each frame; None is out of the picture. Plays to and fro."""

    name: str
    head: Frames
    place: Callable[[int], Place | None]


def head_of(file: Path, detect: Detect, first: int = 0, frames: int = 60, side: int = SIDE) -> Frames:
    """The head of the first face of a video, cut out with a box that stays."""
    pictures = [frame.rgb for frame in islice(read_frames(file), first, first + frames)]
    x0, y0, x1, y1 = detect(pictures[0])[0].box
    scale = side / (2.0 * (y1 - y0))
    shift = side / 2 - scale * np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return np.stack([cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_AREA) for picture in pictures])


def compose(actors: Sequence[Actor], frames: int, background: Frames) -> Iterator[Frames]:
    """Frames with the actors in front of a background (H, W, 3), later ones in front of earlier ones."""
    for index in range(frames):
        picture = background.astype(np.float32)
        for actor in actors:
            place = actor.place(index)
            if place is not None:
                _paste(picture, actor.head[_to_and_fro(index, len(actor.head))], place)
        yield picture.astype(np.uint8)


def _to_and_fro(index: int, frames: int) -> int:
    place = index % (2 * frames - 2)
    return min(place, 2 * frames - 2 - place)


def room(height: int = 270, width: int = 640) -> Frames:
    """A dull background with some structure."""
    y, x = np.mgrid[:height, :width]
    shade = 110 + 30 * np.sin(x / 37) * np.cos(y / 23)
    return np.stack([shade, shade * 0.95, shade * 0.85], axis=-1).astype(np.uint8)


def whom(track: Track, actors: Sequence[Actor]) -> list[str]:
    """Whose face each frame of a track shows: the actor nearest to the mesh, '?' where it was missed."""
    names = []
    for index in range(track.start, track.end):
        box = track.at(index).box
        if box is None:
            names.append("?")
            continue
        centre = (box[:2] + box[2:]) / 2
        near = [(float(np.hypot(*(centre - place))), actor.name) for actor in actors if (place := actor.place(index))]
        names.append(min(near)[1] if near else "nobody")
    return names


def _paste(picture: NDArray[np.float32], head: Frames, place: Place) -> None:
    side = head.shape[0]
    y, x = np.mgrid[:side, :side] / (side / 2) - 1
    matte = np.clip((0.95 - np.hypot(x / 0.8, y)) * 12, 0, 1).astype(np.float32)
    left, top = round(place[0] - side / 2), round(place[1] - side / 2)
    height, width = picture.shape[:2]
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    weight = matte[inside][..., None]
    picture[rows, columns] = picture[rows, columns] * (1 - weight) + head[inside] * weight
