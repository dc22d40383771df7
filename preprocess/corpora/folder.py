"""A folder or s3:// prefix of videos, searched recursively."""

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import InvalidKey, NotFound, Store, open_store
from preprocess.corpora.base import Corpus, Source
from preprocess.quarantine import BadSource

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf"}
    | {".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut"}
    | {".ogg", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
"""What counts as a video by name; FFmpeg then goes by content. Other files (lists, subtitles) are left alone."""


def open_folder(path: str) -> Corpus:
    """A folder corpus at a path, file:// or s3:// URL.

    Raises:
        UsageError: the local folder does not exist.
    """
    if path.startswith("s3://"):
        return BucketFolder(open_store(path))
    folder = Path(path.removeprefix("file://")).expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(f"corpus.path: {folder} is not a folder: create it, or name the folder of the raw videos")
    return LocalFolder(folder)


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _source(name: str) -> Source:
    return Source(name=name, identity=str(PurePosixPath(name).with_suffix("")))


@dataclass(frozen=True)
class LocalFolder:
    """Videos below a local folder; links to folders are followed, each folder is visited once."""

    folder: Path

    def sources(self) -> Iterator[Source]:
        """All videos, sorted by relative path."""
        names = sorted(path.relative_to(self.folder).as_posix() for path in self._files())
        for name in names:
            if not name.isprintable() and any("\ud800" <= char <= "\udfff" for char in name):
                log.warning("left out: the name %r is not valid UTF-8; rename it", name)
            elif _is_video(name):
                yield _source(name)

    def _files(self) -> Iterator[Path]:
        seen: set[tuple[int, int]] = set()
        for root, folders, files in os.walk(self.folder, followlinks=True):
            stat = Path(root).stat()
            if (stat.st_dev, stat.st_ino) in seen:
                folders.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            folders.sort()
            yield from (Path(root, file) for file in files)

    def source(self, name: str) -> Source:
        """The record of one source."""
        return _source(name)

    @contextmanager
    def open(self, name: str) -> Iterator[Path]:
        """The file itself."""
        with self.peek(name):
            pass
        yield self.folder / name

    @contextmanager
    def peek(self, name: str) -> Iterator[IO[bytes]]:
        """The file itself, opened."""
        try:
            stream = (self.folder / name).open("rb")  # closed below; only opening may fail here
        except OSError as error:
            raise BadSource("unreadable", error.strerror or str(error)) from error
        with stream:
            yield stream


@dataclass(frozen=True)
class BucketFolder:
    """Videos below an s3:// prefix; each is fetched to a temporary file while it is worked on."""

    store: Store

    def sources(self) -> Iterator[Source]:
        """All videos, sorted by relative key."""
        return (_source(item.key) for item in self.store.list() if _is_video(item.key))

    def source(self, name: str) -> Source:
        """The record of one source."""
        return _source(name)

    @contextmanager
    def open(self, name: str) -> Iterator[Path]:
        """A copy in a temporary folder, removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="marlin-source-") as folder:
            path = Path(folder, "source" + PurePosixPath(name).suffix)
            try:
                self.store.fetch(name, path)
            except (NotFound, InvalidKey) as error:
                raise BadSource("unreadable", str(error)) from error
            yield path

    @contextmanager
    def peek(self, name: str) -> Iterator[IO[bytes]]:
        """A stream of range requests."""
        try:
            size = self.store.size(name)
        except (NotFound, InvalidKey) as error:
            raise BadSource("unreadable", str(error)) from error
        with io.BufferedReader(_RangeReader(self.store, name, size), 1 << 18) as stream:
            yield stream


class _RangeReader(io.RawIOBase):
    """Raw seekable reader of one object, a range request a read."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub says Buffer, CPython passes this
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        try:
            data = self._store.read_range(self._key, self._at, length)
        except MarlinError as error:
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
