"""Object storage under one interface: a local folder or an S3 bucket, chosen by URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.storage.base import (
    AlreadyExists,
    ConditionalPutsIgnored,
    Conflict,
    Denied,
    InvalidKey,
    NotFound,
    ObjectInfo,
    ReadStore,
    Store,
    Unavailable,
    Versioned,
)
from pipeline.storage.local import LocalStore

__all__ = [
    "AlreadyExists",
    "ConditionalPutsIgnored",
    "Conflict",
    "Denied",
    "InvalidKey",
    "NotFound",
    "ObjectInfo",
    "ReadStore",
    "Store",
    "Unavailable",
    "Versioned",
    "open_store",
]


def open_store(url: str) -> Store:
    """The store at `url`: a path, `file:///path` or `s3://bucket/prefix`.

    Opening touches neither disk nor network and creates nothing; `Store.check` does the asking.

    Raises:
        UsageError: the URL is empty, of an unknown scheme, or lacks its bucket or path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise UsageError("the storage URL is empty: give a path, file:///path or s3://bucket/prefix")
        return LocalStore(Path(url).expanduser().absolute())
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise UsageError(f"storage URL {url!r} names no bucket: write s3://bucket/prefix")
        # boto3 takes a while to import and only S3 users need it.
        from pipeline.storage.s3 import open_s3

        return open_s3(bucket, prefix.strip("/"))
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(f"storage URL {url!r} is not a local absolute path: write file:///path")
        # '#' and '?' are ordinary characters of a file name.
        return LocalStore(Path(unquote(rest.removeprefix("localhost"))))
    raise UsageError(f"storage URL {url!r} has an unknown scheme: use a path, file:// or s3://")
