"""Sources behind http(s):// URLs. A URL may carry a signature in its query: it never becomes part of a message."""

import errno
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3

from pipeline.errors import MarlinError
from pipeline.storage.atomic import os_error
from preprocess.corpora.base import Source
from preprocess.corpora.media import open_ranges
from preprocess.decode.length import measured_seconds
from preprocess.decode.video import VideoInfo, probe
from preprocess.quarantine import BadSource

PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further attempt."""

LARGEST = 64 << 30
"""Bytes of a video at most: a server that sends without end must not fill the disk."""

_TIMEOUTS = (10, 60)  # seconds to connect, and between two parts of an answer
_CHUNK = 1 << 20
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, socket.EAI_AGAIN)
_HOPELESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects)

T = TypeVar("T")


def bare(url: str) -> str:
    """A URL without user, password, query and fragment: what may stand in names and messages."""
    try:
        parts = urlsplit(url)
    except ValueError:  # it is no URL; opening it fails later, as for any bad source
        scheme, separator, rest = re.split("[?#]", url, maxsplit=1)[0].partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class WebMedia:
    """Opens sources whose path is a URL; each is downloaded to a temporary file while it is worked on.

    All methods raise `MarlinError` where it is no fault of the source: no network, or a signature that has expired.
    """

    @contextmanager
    def open(self, source: Source) -> Iterator[Path]:
        """A copy in a temporary folder, removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="marlin-source-") as folder:
            copy = Path(folder, "source" + PurePosixPath(unquote(bare(source.path))).suffix[:16])
            _retried(source.path, lambda: _download(source.path, copy))
            yield copy

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header by range requests; 0 seconds where the server has none."""
        size = _retried(source.path, lambda: _size(source.path))
        if size is None:
            return VideoInfo(seconds=0.0, fps=0.0)
        with _opened(source.path, size) as stream:
            return probe(stream)

    def measure(self, source: Source, halt: Event) -> float:
        """Reads by range requests; 0 seconds where the server has none."""
        size = _retried(source.path, lambda: _size(source.path))
        if size is None:
            return 0.0
        with _opened(source.path, size, whole=True) as stream:
            return measured_seconds(stream, halt)


def _opened(url: str, size: int, whole: bool = False) -> AbstractContextManager[IO[bytes]]:
    return open_ranges(lambda start, length: _retried(url, lambda: _part(url, start, length)), size, whole)


def _download(url: str, copy: Path) -> None:
    with _answer(url) as answer:
        try:
            with copy.open("wb") as file:
                _save(answer, file)
        except requests.RequestException:
            raise  # is an OSError too
        except OSError as error:
            raise os_error(copy.parent, error) from None


def _save(answer: Any, file: IO[bytes]) -> None:
    size = 0
    for chunk in answer.iter_content(_CHUNK):
        size += len(chunk)
        if size > LARGEST:
            raise BadSource("unreadable", f"the server sends more than {LARGEST >> 30} GiB")
        file.write(chunk)


def _size(url: str) -> int | None:
    with _answer(url, (0, 1)) as answer:
        match = re.fullmatch(r"bytes .*/(\d+)", answer.headers.get("Content-Range", ""))
        return int(match[1]) if answer.status_code == requests.codes.partial_content and match else None


def _part(url: str, start: int, length: int) -> bytes:
    with _answer(url, (start, length)) as answer:
        data: bytes = answer.raw.read(length)
    return data


@contextmanager
def _answer(url: str, part: tuple[int, int] | None = None) -> Iterator[Any]:
    """A good answer of the server, for the whole file or for a part of it (start, length)."""
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not compressed on the way
    if part:
        headers["Range"] = f"bytes={part[0]}-{part[0] + part[1] - 1}"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUTS) as answer:
        if not answer.ok:
            answer.raw.decode_content = True
            refused = answer.status_code in (400, 401, 403) and bool(urlsplit(url).query)
            if refused and b"expired" in answer.raw.read(4096).lower():
                raise MarlinError(f"the signature of {bare(url)} has expired: renew the URLs of the list and run again")
            raise requests.HTTPError(response=answer)
        try:
            yield answer
        except urllib3.exceptions.HTTPError as error:  # of a raw read, which requests does not translate
            raise requests.ConnectionError(str(error)) from error


def _retried(url: str, act: Callable[[], T]) -> T:
    """What `act` returns, tried again after failures that may pass."""
    for pause in (*PAUSES, None):
        try:
            return act()
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if pause is None or status not in _BUSY:
                raise BadSource("unreadable", f"the server answers HTTP {status} for {bare(url)}") from None
        except requests.RequestException as error:
            # The texts of these errors hold the whole URL.
            if pause is None or isinstance(error, _HOPELESS):
                if _offline(error):
                    raise MarlinError(f"no network on the way to {bare(url)}: mend it and run again") from None
                raise BadSource("unreadable", f"{bare(url)} can't be fetched: {type(error).__name__}") from None
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _offline(error: BaseException | None) -> bool:
    """Whether an error of a request comes from this machine's network, not from the server."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in _NO_NETWORK:
            return True
        seen.append(error)
        inner = next(
            (item for item in (*error.args, getattr(error, "reason", None)) if isinstance(item, Exception)), None
        )
        error = error.__cause__ or inner or error.__context__
    return False
