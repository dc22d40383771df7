"""What every storage backend promises, and the rules for keys that all of them share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import MarlinError

TEMP_PREFIX = ".tmp-"
"""Path segments that begin so belong to the backends: never a user's key, never listed."""

MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255


class NotFound(MarlinError):
    """No object has this key."""


class Denied(MarlinError):
    """The credentials may not read or write this object."""


class Unavailable(MarlinError):
    """Storage can't be reached, or says that it can't now: the same request may succeed later."""


class AlreadyExists(MarlinError):
    """`create` found an object under this key."""


class Conflict(MarlinError):
    """`replace` found that the object changed, or is gone, since it was read."""


class InvalidKey(MarlinError):
    """The key is not a relative path that every backend can hold."""


class ConditionalPutsIgnored(MarlinError):
    """The server accepts `If-None-Match` / `If-Match` but overwrites all the same."""


@dataclass(frozen=True)
class ObjectInfo:
    """One entry of a listing; `size` in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Versioned:
    """An object's bytes with the version to hand to `Store.replace`."""

    data: bytes
    version: str


class ReadStore(Protocol):
    """Objects under one URL, to read.

    Keys are relative, `/`-separated paths (see `check_key`). Every method raises `MarlinError` with one line that
    names the object and the fix when the storage itself fails: unreachable, refused, full.
    """

    @property
    def url(self) -> str:
        """Where this store is: an absolute path or `s3://bucket/prefix`, without a trailing slash."""
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `start`.

        Raises:
            NotFound: no such object.
            MarlinError: the object ends before `start + length`.
        """
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """All bytes of an object of any size in order, a piece at a time; nothing stays open once it is closed.

        Raises:
            NotFound: no such object; at the first piece.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """A real file to read from (raises `NotFound`), or None where objects are remote."""
        ...


class Store(ReadStore, Protocol):
    """Objects under one URL, to read and to write; each becomes visible whole or not at all."""

    def at(self, sub: str) -> "Store":
        """The store of everything under `sub`; nothing is created."""
        ...

    def read(self, key: str) -> bytes:
        """All bytes of an object. Raises `NotFound`."""
        ...

    def read_versioned(self, key: str) -> Versioned:
        """All bytes of an object with its version. Raises `NotFound`."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to a local file, whole or not at all. Raises `NotFound`."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put an object, over an existing one if there is one."""
        ...

    def write_file(self, key: str, path: Path) -> None:
        """Put a local file of any size, over an existing object if there is one."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Put an object only if the key is free: of several callers exactly one wins.

        Raises:
            AlreadyExists: the key is taken.
            ConditionalPutsIgnored: this server cannot promise it.
        """
        ...

    def replace(self, key: str, data: bytes, version: str) -> str:
        """Put a new content over the version read before; returns the new version.

        Raises:
            Conflict: the object changed, or was deleted, meanwhile.
            ConditionalPutsIgnored: this server cannot promise it.
        """
        ...

    def size(self, key: str) -> int:
        """Size of an object in bytes. Raises `NotFound`."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object has this key."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with the characters of `prefix`, sorted by key."""
        ...

    def age(self, key: str) -> float:
        """Seconds since an object was last written, all by the storage's own clock. Raises `NotFound`."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is fine."""
        ...

    def remove_unfinished(self, prefix: str) -> None:
        """Remove what dead writers left half-written under `prefix`; only for who knows that nobody writes there."""
        ...

    def supports_conditional(self) -> bool:
        """Whether `create` and `replace` are truly conditional here, found out by trying."""
        ...

    def check(self) -> None:
        """Raise `MarlinError` unless the place can be reached, read and written."""
        ...


def check_key(key: str) -> str:
    """Return `key` if every backend can hold it.

    Raises:
        InvalidKey: empty, absolute, with `.`, `..` or empty segments, control characters or backslashes, with
            reserved or too long names.
    """
    segments = key.split("/")
    try:
        sizes = [len(segment.encode()) for segment in segments]
    except UnicodeEncodeError:
        raise InvalidKey(f"object key {key!r} is not valid text: rename the file to valid UTF-8") from None
    if any(segment in ("", ".", "..") for segment in segments):
        raise InvalidKey(f"object key {key!r} is not a plain relative path: leave out leading '/', '//', '.' and '..'")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidKey(f"object key {key!r} holds a control character: rename it")
    if "\\" in key:
        # Some S3 servers take it for a slash.
        raise InvalidKey(f"object key {key!r} holds a backslash: rename it")
    if any(segment.startswith(TEMP_PREFIX) for segment in segments):
        raise InvalidKey(f"object key {key!r}: names that begin with '{TEMP_PREFIX}' are reserved, rename it")
    if max(sizes) > MAX_SEGMENT_BYTES or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(
            f"object key {key[:60]!r}… is too long: at most {MAX_SEGMENT_BYTES} bytes between slashes, "
            f"{MAX_KEY_BYTES} in all"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it can begin a valid key: empty, a key, or the first characters of one.

    Raises:
        InvalidKey: no valid key begins so.
    """
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix)
    return prefix


def is_reserved(key: str) -> bool:
    """Whether a listed name is a backend's own temporary file, lock or probe."""
    return any(segment.startswith(TEMP_PREFIX) for segment in key.split("/"))
