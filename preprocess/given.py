"""Second pass over a video that shows nothing but one face and brings its label maps along: no networks."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.corpora.clip import Clip
from preprocess.cutout import begin_samples
from preprocess.dataset.sample import SampleBuilder
from preprocess.decode.frame import Frame
from preprocess.faces.crop import whole
from preprocess.faces.find import Found, Stats
from preprocess.faces.geometry import squares
from preprocess.quarantine import BadSource

# A picture and its label map may differ by so much of a frame: clocks of streams are rounded.
_APART = 0.25


def given_samples(clip: Clip, found: Found, stats: Stats, cfg: PreprocessConfig) -> Iterator[SampleBuilder]:
    """Filled samples in the order in which they are complete: whole pictures with the label maps of the video.

    Raises:
        BadSource: no run is long enough, the video is damaged, or a frame has no label map.
    """
    parsed_by: dict[str, Any] = {"parser": cfg.parser, "models": {}}
    waiting = [builder for _, builder in begin_samples(clip, found, stats, cfg, parsed_by)]
    for frame, labels in _labelled(clip, found, cfg):
        builder = waiting[0]
        if frame.index >= builder.run.start:
            builder.add(whole(frame.rgb, cfg.size), _resampled(labels, cfg.size), _square(frame.rgb), frame.time)
        if builder.full:
            stats.samples += 1
            yield waiting.pop(0)
            if not waiting:
                return
    raise BadSource("damaged", "it gave fewer frames when it was read again: it changed meanwhile")


def _labelled(clip: Clip, found: Found, cfg: PreprocessConfig) -> Iterator[tuple[Frame, Image]]:
    maps = clip.label_maps(cfg.fps)
    for frame in clip.frames(cfg.fps):
        time, labels = next(maps, (None, None))
        if time is None or labels is None:
            raise BadSource("no-regions", f"its label maps end after {frame.index} of {found.frames} frames")
        if abs(time - frame.time) > _APART / found.fps:
            raise BadSource(
                "no-regions",
                f"its label map {frame.index} is of {time:.2f} s and its picture of {frame.time:.2f} s: give both "
                "video streams the same times",
            )
        yield frame, labels


def _square(rgb: Image) -> Floats:
    """Centre and larger side (3,) of a picture."""
    square: Floats = squares(np.array([[0, 0, rgb.shape[1], rgb.shape[0]]], np.float64))[0]
    return square


def _resampled(labels: Image, size: int) -> Image:
    """A label map as a crop (size, size): the nearest value."""
    return np.asarray(cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))
