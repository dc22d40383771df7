"""What a corpus gives to the stage: a sorted list of sources, each openable as a local file."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


@dataclass(frozen=True)
class Source:
    """One raw video.

    Attributes:
        name: unique in the corpus, stable over runs; a path relative to the corpus.
        identity: who is seen in it, as far as the corpus knows; used for splits and probes.
    """

    name: str
    identity: str


class Corpus(Protocol):
    """A place with raw videos."""

    def sources(self) -> Iterator[Source]:
        """All sources, sorted by name."""

    def source(self, name: str) -> Source:
        """The record of one source; no check that it exists."""

    def open(self, name: str) -> AbstractContextManager[Path]:
        """The source as a local file, for the time of the context.

        Raises:
            BadSource: it is gone or can't be read.
        """

    def peek(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The source as a seekable stream that reads little, for a look at its header.

        Raises:
            BadSource: it is gone or can't be read.
        """
