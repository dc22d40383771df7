"""A span of a video that is being worked on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preprocess.corpora.base import Source
from preprocess.video import Frame, Span, probe, read_frames


@dataclass(frozen=True)
class Clip:
    """A span of a local video, or of a folder of frames.

    Attributes:
        file: the video, or the folder of its frames.
        span: seconds of it; None is all.
        source: what the corpus tells of it.
        key: begins the keys of its samples; unique in the dataset.
    """

    file: Path
    span: Span | None
    source: Source
    key: str

    def rate(self) -> float:
        """Its own frames per second.

        Raises:
            BadSource: it is no readable video.
        """
        return probe(self.file).fps

    def frames(self, fps: float | None) -> Iterator[Frame]:
        """Its frames at a rate, or its own ones; the same frames at every call.

        Raises:
            BadSource: unreadable, no video, or damaged on the way.
        """
        return read_frames(self.file, self.span, fps)
