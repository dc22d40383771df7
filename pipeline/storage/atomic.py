"""Files that appear whole or not at all, locks between processes, and what the operating system's errors mean."""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import MarlinError
from pipeline.storage.base import TEMP_PREFIX

COPY_BYTES = 1 << 20

_FIXES = {
    errno.ENOSPC: "no space left: free some space and run again",
    errno.EDQUOT: "disk quota reached: free some space and run again",
    errno.EFBIG: "larger than the file-size limit of this process (ulimit -f): raise it and run again",
    errno.EACCES: "permission denied: change its permissions or choose another place",
    errno.EPERM: "operation not permitted: change its permissions or choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a part of this path is a file, not a folder: move that file away or choose another path",
    errno.EEXIST: "a part of this path is a file, not a folder: move that file away or choose another path",
    errno.EISDIR: "this is a folder where a file is needed: move it away or choose another path",
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
    errno.ENOSYS: "the file system lacks file locks: mount it with locking or choose another place",
    errno.ENOTSUP: "the file system lacks hard links or file locks: choose another place",
}


def os_error(path: Path | str, error: OSError) -> MarlinError:
    """The one-line error for a failed file operation on `path`."""
    fix = _FIXES.get(error.errno or 0, f"{error.strerror or type(error).__name__}: check the disk and run again")
    return MarlinError(f"{path}: {fix}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write `path` through a temporary file beside it: fsynced and renamed at the end, removed on any failure.

    Raises:
        OSError: as the file system gives it; `path` is then untouched.
    """
    with temporary_file(path) as (temporary, file):
        yield file
        finish(file)
        temporary.replace(path)
        sync_folder(path.parent)


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A fresh file in the folder of `path` (made if need be), on the same file system; removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def finish(file: BinaryIO) -> None:
    """Bring all that was written to `file` onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's names onto the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if absent) against other threads and processes."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
