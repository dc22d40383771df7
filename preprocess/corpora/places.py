"""Opens videos by addresses of any kind: paths, s3:// and http(s):// URLs."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Event

from preprocess.corpora.base import Media, Opener, Source
from preprocess.corpora.media import LocalMedia, open_folder
from preprocess.corpora.web import WebMedia
from preprocess.decode.video import VideoInfo
from preprocess.quarantine import BadSource


@dataclass(frozen=True)
class Places:
    """Opens sources whose path is an address; one without a scheme that is not absolute begins at `home`."""

    home: Media

    def open(self, source: Source) -> AbstractContextManager[Path]:
        """The video at the address."""
        opener, there = self._place(source)
        return opener.open(there)

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header where the video lies."""
        opener, there = self._place(source)
        return opener.probe(there)

    def measure(self, source: Source, halt: Event) -> float:
        """Reads the video where it lies."""
        opener, there = self._place(source)
        return opener.measure(there, halt)

    def _place(self, source: Source) -> tuple[Opener, Source]:
        scheme, separator, rest = source.path.partition("://")
        if not separator:
            return (LocalMedia(Path("/")) if source.path.startswith("/") else self.home), source
        if scheme in ("http", "https"):
            return WebMedia(), source
        bucket, _, key = rest.partition("/")
        if scheme == "s3" and bucket and key:
            return _bucket(bucket), replace(source, path=key)
        if scheme == "file" and rest.startswith("/"):
            return LocalMedia(Path("/")), replace(source, path=rest)
        raise BadSource("unreadable", f"its address begins with {scheme}://: use a path, s3://, http:// or https://")


@lru_cache(maxsize=8)
def _bucket(bucket: str) -> Media:
    return open_folder(f"s3://{bucket}")
