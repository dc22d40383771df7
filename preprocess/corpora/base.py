"""What a corpus gives to the stage: sources in a fixed order, and the place that opens them."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal, Protocol

from preprocess.decode.video import Span, VideoInfo

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Source:
    """One raw video, or a folder of frames, and all that its corpus knows of it.

    Attributes:
        name: unique in the dataset, stable over runs.
        identity: who is seen in it, as far as the corpus knows; used for splits and probes.
        people: each of those who are seen in it, where `identity` stands for several people.
        path: where the media finds it, relative to the corpus; a folder of frame images ends with "/".
        span: the seconds of the video that count, for corpora that name segments; None is all.
        split: where an official list puts it; None leaves it to `preprocess.holdout*`.
        labels: values by the names of the listing's label schema: 0s and 1s, numbers, or the name of a class.
        text: transcript.
        frame_rate: frames per second of a folder of frames.
    """

    name: str
    identity: str
    path: str
    span: Span | None = None
    split: Split | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    frame_rate: float = 25.0
    people: tuple[str, ...] = ()

    @property
    def everyone(self) -> frozenset[str]:
        """All names of those who are seen in it."""
        return frozenset((self.identity, *self.people))


@dataclass(frozen=True)
class Gap:
    """What a list lacks in the corpus, or the corpus in a list.

    Attributes:
        limit: the key of the section `corpus` that says which share is tolerated.
        what: the rest of a line that begins with the count, as in `preprocess.corpora.findings.finding`, such as
            "described clips (has|have) no video".
        names: of all that is lacking, sorted.
        total: of how many.
    """

    limit: Literal["max_missing", "max_unlabelled"]
    what: str
    names: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class Listing:
    """A corpus as it is found now.

    Attributes:
        sources: sorted by name.
        labels: schema of the labels: name → type and meaning, as it stands in dataset.json.
        findings: a line each for what does not fit: list entries without a file, files in no list, unexpected counts.
        audio: whether samples keep their sound.
        gaps: between the corpus and its label file, and its split lists.
    """

    sources: tuple[Source, ...]
    labels: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    audio: bool = False
    gaps: tuple[Gap, ...] = ()


class Opener(Protocol):
    """Opens sources."""

    def open(self, source: Source) -> AbstractContextManager[Path]:
        """A source's video as a local file (a folder of frames as a local folder), for the time of the context.

        Raises:
            BadSource: it is gone or can't be read.
        """
        ...

    def probe(self, source: Source) -> VideoInfo:
        """Length and frame rate from the header, reading little; 0 seconds where they can't be known so.

        Raises:
            BadSource: it is gone, can't be read or is no video.
        """
        ...

    def measure(self, source: Source, halt: Event) -> float:
        """Length of a video file whose header has none, reading as much as it takes; 0 seconds where it can't be known.

        Args:
            source: what to measure.
            halt: once it is set, nobody waits for the answer any more.

        Raises:
            BadSource: it is gone, can't be read or is no video.
        """
        ...


class Media(Opener, Protocol):
    """The place that a corpus lies in."""

    @property
    def url(self) -> str:
        """Absolute path or s3:// URL of it."""
        ...

    def files(self, under: str = "") -> Iterator[str]:
        """All files below it, or below a folder of it (which ends with "/"), as sorted paths relative to it."""
        ...

    def read(self, path: str) -> bytes:
        """A small file: a list or a table. Raises `NotFound`, or `MarlinError` when it can't be read."""
        ...

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder of this name."""
        ...

    def located(self, source: Source) -> Source:
        """The source with all that `open_places` needs to open it in `path`. A secret may be in it: it is never stored.

        Raises:
            BadSource: it is gone.
        """
        ...
