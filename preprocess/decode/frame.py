"""A frame of a video."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from preprocess.arrays import Image


@dataclass(frozen=True)
class Frame:
    """One decoded frame; its colours are converted only when someone looks.

    Attributes:
        index: position in the (resampled) span.
        time: seconds from the video's start.
        show: gives RGB (H, W, 3), upright and with square pixels.
    """

    index: int
    time: float
    show: Callable[[], Image]

    @cached_property
    def rgb(self) -> Image:
        """The picture (H, W, 3)."""
        return self.show()

    @classmethod
    def of(cls, index: int, time: float, rgb: Image) -> "Frame":
        """A frame whose colours are there already."""
        return cls(index, time, lambda: rgb)
