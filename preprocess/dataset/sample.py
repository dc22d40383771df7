"""One sample: a tracked face over a run of frames, as the named parts that go into a shard."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from pipeline.storage.manifest import to_json
from preprocess.arrays import Floats, Image
from preprocess.faces.runs import Run
from preprocess.regions import patch_grid

# Label maps are runs of equal values: coding just these is six times as fast as the default, and no larger.
PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
]


@dataclass(frozen=True)
class Style:
    """How samples are stored; see the preprocess section of the configuration."""

    size: int
    patch: int
    quality: int
    label_maps: bool


@dataclass(eq=False)
class SampleBuilder:
    """Collects the frames of one run; holds them compressed.

    Attributes:
        head: the fields of `<key>.json` that are known from the start (key, source, identity, track, backends …).
    """

    run: Run
    style: Style
    head: Mapping[str, Any]
    _jpegs: list[bytes] = field(default_factory=list)
    _labels: list[Image] = field(default_factory=list)
    _boxes: list[list[float]] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)
    _unparsed: list[int] = field(default_factory=list)

    def add(self, crop: Image, labels: Image | None, square: Floats, time: float) -> None:
        """Takes the next frame.

        Args:
            crop: (S, S, 3) RGB.
            labels: (S, S) label map, or None where parsing failed.
            square: centre x, centre y, side of the face in source pixels, without margin.
            time: seconds from the start of the video.
        """
        if labels is None:
            self._unparsed.append(len(self._jpegs))
            labels = np.zeros(crop.shape[:2], np.uint8)
        bgr = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), np.uint8)
        self._jpegs.append(_encoded(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.style.quality]))
        self._labels.append(labels)
        x, y, half = float(square[0]), float(square[1]), float(square[2]) / 2
        self._boxes.append([round(value, 2) for value in (x - half, y - half, x + half, y + half)])
        self._times.append(round(time, 4))

    @property
    def unparsed(self) -> int:
        """Frames so far without a parse."""
        return len(self._unparsed)

    @property
    def full(self) -> bool:
        """Whether all frames of the run are there."""
        return len(self._jpegs) == self.run.frames

    @property
    def seconds(self) -> tuple[float, float]:
        """When its first frame begins and its last one ends, on the video's clock."""
        return self._times[0], self._times[-1] + 1 / self.head["fps"]

    def parts(self, sound: bytes | None = None, text: str = "") -> dict[str, bytes]:
        """The parts in their order in the shard, by name; `sound` is that of its `seconds`, `text` its source's."""
        labels = np.stack(self._labels)
        grid = patch_grid(labels, self.style.patch)
        grid[self._unparsed] = 0
        parts = {f"{number:03d}.jpg": data for number, data in enumerate(self._jpegs)}
        parts["regions.npy"] = _npy(grid)
        if self.style.label_maps:
            parts["labels.png"] = _encoded(".png", labels.reshape(-1, labels.shape[-1]), PNG_OPTIONS)
        if sound is not None:
            parts["flac"] = sound
        if text.strip():
            parts["txt"] = text.encode()
        record = {
            **self.head,
            "start": self.run.start,
            "frames": self.run.frames,
            "split": self.run.split,
            "boxes": self._boxes,
            "times": self._times,
            "unparsed": self._unparsed,
        }
        parts["json"] = to_json(record)
        return parts


def _encoded(suffix: str, image: Image, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise ValueError(f"OpenCV can't encode a picture of {image.shape} as {suffix}")
    return data.tobytes()


def _npy(array: Image) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
