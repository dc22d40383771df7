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
LINE = 24
"""Height of a line of text in pixels."""

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


def write_png(picture: Image, out: Path) -> None:
    """Write an RGB picture whole or not at all.

    Raises:
        UsageError: the name is not a PNG's.
        MarlinError: the file can't be written.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"-o {out}: a PNG is written: let the name end in .png")
    encoded = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    try:
        with whole_file(out) as file:
            file.write(encoded)
    except OSError as error:
        raise os_error(out, error) from None
