"""Folders of frame images, read like videos: numbered JPEG, PNG … files, in the order of their numbers."""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import MarlinError
from pipeline.storage.manifest import sha256_file
from preprocess.arrays import Image
from preprocess.decode.frame import Frame
from preprocess.decode.video import Span
from preprocess.quarantine import BadSource

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""What counts as a frame by its name."""

_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)(?P<suffix>\.[A-Za-z]+)", re.DOTALL)


def is_image(name: str) -> bool:
    """Whether a file counts as an image by its name."""
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def series(names: Iterable[str]) -> list[str]:
    """The frames among the file names of one folder, in order; empty where they are not the frames of one video.

    Frames are at least two images whose names differ in nothing but the number before the suffix. Other files, and
    images without a number, are left alone. Gaps between the numbers don't count: frames follow each other.
    """
    frames: dict[int, str] = {}
    kinds = set()
    for name in names:
        match = _NUMBERED.fullmatch(name) if is_image(name) else None
        if match is None:
            continue
        number = int(match["number"])
        if number in frames:
            return []
        frames[number] = name
        kinds.add((match["before"], match["suffix"].lower()))
    if len(frames) < 2 or len(kinds) > 1:
        return []
    return [frames[number] for number in sorted(frames)]


def frame_files(folder: Path) -> list[Path]:
    """The frames of a local folder in order.

    Raises:
        BadSource: the folder can't be read, or holds no series of frames.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise BadSource("unreadable", error.strerror or str(error)) from error
    return [folder / name for name in checked_series(names)]


def checked_series(names: Iterable[str]) -> list[str]:
    """The frames of a folder that should hold some.

    Raises:
        BadSource: it does not.
    """
    found = series(names)
    if not found:
        raise BadSource("no-video", "the folder holds no images that are numbered as the frames of one video")
    return found


def read_frames(folder: Path, rate: float, span: Span | None = None, fps: float | None = None) -> Iterator[Frame]:
    """Frames of a folder of images (or of a span of it) in order; the same frames at every call.

    Args:
        folder: a local folder.
        rate: frames per second that the images were taken at.
        span: seconds to read, end exclusive; None is all.
        fps: resample to this rate (the frame on screen at each tick); None gives every frame.

    Raises:
        BadSource: unreadable, no frames, or an image is damaged.
    """
    files = frame_files(folder)
    shown, rgb = -1, None
    for index, (time, number) in enumerate(_ticks(len(files), rate, span, fps)):
        if rgb is None or number != shown:
            shown, rgb = number, _decoded(files[number])
        yield Frame.of(index, time, rgb)


def sha256_frames(folder: Path) -> str:
    """One hash of all frames: over their names and contents, in order.

    Raises:
        BadSource: the folder or a frame can't be read, or it holds no series of frames.
    """
    digest = hashlib.sha256()
    for file in frame_files(folder):
        try:
            digest.update(f"{sha256_file(file)} {file.name}\n".encode())
        except MarlinError as error:
            raise BadSource("unreadable", str(error)) from error
    return digest.hexdigest()


def _ticks(count: int, rate: float, span: Span | None, fps: float | None) -> Iterator[tuple[float, int]]:
    """Seconds and number of each frame to show."""
    start, end = span or (0.0, math.inf)
    if fps is None:
        yield from ((number / rate, number) for number in range(count) if start <= number / rate < end)
        return
    for tick in itertools.count():
        time = start + tick / fps
        number = math.floor(time * rate + 1e-6)  # a tick that falls on a frame shows that one
        if number >= count or time >= end:
            return
        yield time, number


def _decoded(file: Path) -> Image:
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise BadSource("unreadable", f"frame {file.name}: {error.strerror or error}") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise BadSource("damaged", f"frame {file.name} can't be decoded") from error
    if bgr is None:
        raise BadSource("damaged", f"frame {file.name} is no whole image")
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8, copy=False)
