"""Where raw videos lie: a local folder, or an s3:// prefix."""

import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import Denied, InvalidKey, NotFound, Store, open_store
from pipeline.storage.atomic import os_error
from preprocess.corpora.base import Media, Source
from preprocess.decode.frames import checked_series, frame_files
from preprocess.decode.length import measured_seconds
from preprocess.decode.video import VideoInfo, probe
from preprocess.quarantine import BadSource

log = logging.getLogger(__name__)

FETCHES_AT_ONCE = 8
# Bytes of one request: a header is small, a file that is gone through takes many.
_HEADER_BLOCK, _BLOCK = 1 << 18, 4 << 20
# What storage says of one object, and not of itself.
_OF_THE_SOURCE = (NotFound, InvalidKey, Denied)


def open_folder(path: str) -> Media:
    """The place at a path, file:// or s3:// URL.

    Raises:
        UsageError: nothing is given, or it is no local folder.
        MarlinError: it can't be looked at.
    """
    if not path:
        raise UsageError("corpus.path is empty: set it to the folder or s3:// prefix of the raw videos")
    scheme, separator, _ = path.partition("://")
    if scheme == "s3" and separator:
        return BucketMedia(open_store(path))
    if separator and scheme != "file":
        raise UsageError(f"corpus.path: {scheme}:// can't be read: use a path, file:// or s3://")
    folder = Path(path.removeprefix("file://")).expanduser().absolute()
    if _is_directory(folder):
        return LocalMedia(folder)
    what = "is a file: name" if folder.exists() else "is not a folder: create it, or name"
    raise UsageError(f"corpus.path: {folder} {what} the folder of the raw videos")


def is_folder(source: Source) -> bool:
    """Whether a source is a folder of frame images."""
    return source.path.endswith("/")


@dataclass(frozen=True)
class LocalMedia:
    """Files below a local folder; links to folders are followed, each folder is visited once."""

    folder: Path

    @property
    def url(self) -> str:
        """Absolute path of the folder."""
        return str(self.folder)

    def files(self, under: str = "") -> Iterator[str]:
        """All files, sorted; a name that is not valid UTF-8 is left out with a warning."""
        for name in sorted(path.relative_to(self.folder).as_posix() for path in self._walk(self.folder / under)):
            if any("\ud800" <= char <= "\udfff" for char in name):
                log.warning("left out: the name %r is not valid UTF-8; rename it", name)
            else:
                yield name

    def _walk(self, top: Path) -> Iterator[Path]:
        seen: set[tuple[int, int]] = set()
        for root, folders, files in os.walk(top, followlinks=True, onerror=_warn):
            try:
                stat = Path(root).stat()
            except OSError as error:
                _warn(error)
                continue
            if (stat.st_dev, stat.st_ino) in seen:
                folders.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            folders.sort()
            yield from (Path(root, file) for file in files)

    def read(self, path: str) -> bytes:
        """A small file."""
        file = self.folder / path
        try:
            return file.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"{file}: no such file") from None
        except OSError as error:
            raise os_error(file, error) from None

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder of this name, be it empty."""
        return _is_directory(self.folder / path)

    def located(self, source: Source) -> Source:
        """The source itself."""
        return source

    @contextmanager
    def open(self, source: Source) -> Iterator[Path]:
        """The file or folder itself."""
        if not is_folder(source):
            with self._opened(source.path):
                pass
        elif not (self.folder / source.path).is_dir():
            there = (self.folder / source.path.rstrip("/")).exists()
            raise BadSource("unreadable", "it is no folder of frames, but a file" if there else "it is gone")
        yield self.folder / source.path

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header of the file itself, or counts the frames of the folder."""
        if is_folder(source):
            return _frames_info(len(frame_files(self.folder / source.path)), source)
        with self._opened(source.path) as stream:
            return probe(stream)

    def measure(self, source: Source, halt: Event) -> float:
        """Reads the file itself."""
        with self._opened(source.path) as stream:
            return measured_seconds(stream, halt)

    def _opened(self, path: str) -> IO[bytes]:
        file = self.folder / path
        try:
            if not file.is_file():  # opening a pipe would wait for its other end
                raise BadSource("unreadable", _no_file(file))
            return file.open("rb")
        except OSError as error:
            raise BadSource("unreadable", f"it can't be opened: {error.strerror or error}") from error


@dataclass(frozen=True)
class BucketMedia:
    """Objects below an s3:// prefix; each is fetched to a temporary file while it is worked on."""

    store: Store

    @property
    def url(self) -> str:
        """URL of the prefix."""
        return self.store.url

    def files(self, under: str = "") -> Iterator[str]:
        """All objects, sorted by relative key."""
        return (item.key for item in self.store.list(under))

    def read(self, path: str) -> bytes:
        """A small object."""
        return self.store.read(path)

    def has_folder(self, path: str) -> bool:
        """Whether any object lies below this name."""
        return any(True for _ in self.store.list(f"{path.strip('/')}/" if path.strip("/") else ""))

    def located(self, source: Source) -> Source:
        """The source itself."""
        return source

    @contextmanager
    def open(self, source: Source) -> Iterator[Path]:
        """A copy in a temporary folder, removed afterwards; the frames of a folder are fetched several at once."""
        with tempfile.TemporaryDirectory(prefix="marlin-source-") as folder:
            if is_folder(source):
                copies = {key: Path(folder, PurePosixPath(key).name) for key in self._frames(source)}
                with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
                    list(pool.map(self._fetch, copies, copies.values()))
                yield Path(folder)
            else:
                copy = Path(folder, "source" + PurePosixPath(source.path).suffix[:16])
                self._fetch(source.path, copy)
                yield copy

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header by range requests, or counts the frames of the folder."""
        if is_folder(source):
            return _frames_info(len(self._frames(source)), source)
        with self._opened(source.path) as stream:
            return probe(stream)

    def measure(self, source: Source, halt: Event) -> float:
        """Reads by range requests."""
        with self._opened(source.path, whole=True) as stream:
            return measured_seconds(stream, halt)

    def _opened(self, key: str, whole: bool = False) -> AbstractContextManager[IO[bytes]]:
        try:
            size = self.store.size(key)
        except _OF_THE_SOURCE as error:
            raise BadSource("unreadable", str(error)) from error
        return open_ranges(partial(self._read_part, key, size), size, whole)

    def _read_part(self, key: str, size: int, start: int, length: int) -> bytes:
        try:
            return self.store.read_range(key, start, length)
        except MarlinError as error:
            # Storage that fails is no fault of the source, and must not leave it with an unknown length.
            if isinstance(error, _OF_THE_SOURCE) or self.store.size(key) != size:
                raise BadSource("unreadable", str(error)) from error
            raise

    def _fetch(self, key: str, copy: Path) -> None:
        try:
            self.store.fetch(key, copy)
        except _OF_THE_SOURCE as error:
            raise BadSource("unreadable", str(error)) from error

    def _frames(self, source: Source) -> list[str]:
        """Keys of the frames of a folder, in order."""
        prefix = source.path.removeprefix("./")
        try:
            keys = [item.key for item in self.store.list(prefix)]
        except InvalidKey as error:
            raise BadSource("unreadable", str(error)) from error
        if not keys:
            raise BadSource("unreadable", "it is gone")
        names = (key.removeprefix(prefix) for key in keys)
        return [prefix + name for name in checked_series(name for name in names if "/" not in name)]


@contextmanager
def open_ranges(read: Callable[[int, int], bytes], size: int, whole: bool = False) -> Iterator[IO[bytes]]:
    """A remote file as a seekable stream, for the time of the context.

    Args:
        read: `read(start, length)` gives a part of it.
        size: its bytes.
        whole: most of it will be read, and not its header alone.

    Raises:
        Exception: what `read` raised, at the end of the context. Until then the stream seems to end there: FFmpeg would
            try again and again.
    """
    parts = _RangeReader(read, size)
    try:
        with io.BufferedReader(parts, _BLOCK if whole else _HEADER_BLOCK) as stream:
            yield stream
    finally:
        if parts.failure is not None:
            raise parts.failure


def _no_file(path: Path) -> str:
    """Why a path is no file to read."""
    if path.is_dir():
        return "it is a folder: a folder of frames is named with / at its end"
    if path.exists():
        return "it is no regular file"
    return "it is a link that leads nowhere" if path.is_symlink() else "it is gone"


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise os_error(path, error) from None


def _warn(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        log.warning("left out: the folder %r can't be read (%s)", error.filename, error.strerror)


def _frames_info(count: int, source: Source) -> VideoInfo:
    return VideoInfo(seconds=count / source.frame_rate, fps=source.frame_rate)


class _RangeReader(io.RawIOBase):
    """Raw seekable reader of one remote file, a request a read."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range, self._size, self._at = read, size, 0
        self.failure: Exception | None = None

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
        if length <= 0 or self.failure is not None:
            return 0
        try:
            data = self._read_range(self._at, length)
        except Exception as error:
            self.failure = error
            return 0
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
