"""A span of a video that is being worked on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import MarlinError
from pipeline.storage.manifest import sha256_file
from preprocess.arrays import Image
from preprocess.corpora.base import Source
from preprocess.decode.frame import Frame
from preprocess.decode.frames import read_frames as read_images
from preprocess.decode.frames import sha256_frames
from preprocess.decode.regions import read_label_maps
from preprocess.decode.replay import Replay
from preprocess.decode.video import Span, probe, read_frames
from preprocess.quarantine import BadSource


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
    _replay: Replay = field(default_factory=Replay, compare=False, repr=False)

    def rate(self) -> float:
        """Its own frames per second.

        Raises:
            BadSource: it is no readable video.
        """
        return self.source.frame_rate if self.file.is_dir() else probe(self.file).fps

    def frames(self, fps: float | None) -> Iterator[Frame]:
        """Its frames at a rate, or its own ones; the same frames at every call, with the same rate.

        Raises:
            BadSource: unreadable, no video, or damaged on the way.
        """
        return self._replay.frames(lambda: self._decoded(fps))

    def label_maps(self, fps: float | None) -> Iterator[tuple[float, Image]]:
        """Seconds and label map (H, W) of each of its frames at a rate, or at its own, as the video brings them along.

        Raises:
            BadSource: it brings none, or is damaged on the way.
        """
        if self.file.is_dir():
            raise BadSource("no-regions", "a folder of frames has no second video stream with label maps")
        return read_label_maps(self.file, self.span, fps)

    def _decoded(self, fps: float | None) -> Iterator[Frame]:
        if self.file.is_dir():
            return read_images(self.file, self.source.frame_rate, self.span, fps)
        return read_frames(self.file, self.span, fps)

    def sha256(self) -> str:
        """Hash of the whole video, or of all frames of the folder.

        Raises:
            BadSource: it can't be read any more, or the folder holds no frames.
        """
        if self.file.is_dir():
            return sha256_frames(self.file)
        try:
            return sha256_file(self.file)
        except MarlinError as error:
            raise BadSource("unreadable", str(error)) from error
