"""Sheets of pictures for people: lines of text, the legend of the regions, the PNG."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import UsageError
from pipeline.storage.atomic import os_error, whole_file
from pipeline.text import printable
from preprocess.arrays import Image
from preprocess.regions import BACKGROUND, COLOURS, REGIONS

INK, DIM, PAPER = (235, 235, 235), (150, 150, 150), (24, 24, 24)
LINE, GAP = 24, 4
"""Height of a line of text and the gap between pictures, in pixels."""

_FONT, _TEXT_SIZE, _WEIGHT = cv2.FontFace("sans"), 15, 400

Words = Sequence[tuple[str, tuple[int, int, int]]]


def legend() -> Words:
    """The names of the regions in their colours."""
    return [(name, COLOURS[region]) for region, name in enumerate(REGIONS) if region != BACKGROUND]


def text_line(words: Words, width: int) -> Image:
    """A line of words, each in its colour."""
    row = np.full((LINE, width, 3), PAPER, np.uint8)
    at = 8
    for word, colour in words:
        drawn = printable(word)
        cv2.putText(row, drawn, (at, LINE - 7), colour, _FONT, _TEXT_SIZE, _WEIGHT)
        at += text_width(drawn) + 24
    return row


def text_width(text: str) -> int:
    """Width of a text in pixels."""
    _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _FONT, _TEXT_SIZE, _WEIGHT)
    return int(width)


def scaled(picture: Image, side: int) -> Image:
    """A square picture at another size."""
    shrinks = len(picture) > side
    resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def padded(picture: Image, *, above: int = 0, below: int = 0, right: int = 0) -> Image:
    """A picture with paper around it."""
    around = cv2.copyMakeBorder(picture, above, below, 0, right, cv2.BORDER_CONSTANT, value=PAPER)
    return np.asarray(around, np.uint8)


def row(pictures: Sequence[Image]) -> Image:
    """Pictures of one height side by side, with a gap after each and below."""
    return padded(np.concatenate([padded(picture, right=GAP) for picture in pictures], axis=1), below=GAP)


def write_png(picture: Image, out: Path) -> None:
    """Write an RGB picture whole or not at all.

    Raises:
        UsageError: the name is not a PNG's.
        MarlinError: the file can't be written.
    """
    check_png(out)
    encoded = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    try:
        with whole_file(out) as file:
            file.write(encoded)
    except OSError as error:
        raise os_error(out, error) from None


def check_png(out: Path) -> None:
    """Whether a PNG can have this name, asked before it is drawn.

    Raises:
        UsageError: it can't.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"-o {out}: a PNG is written: let the name end in .png")
