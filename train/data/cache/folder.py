"""The folder of shard copies on this machine, shared by all processes that train here.

    lock           held for a moment by whoever changes what is in the folder
    <sha256>.tar   a whole copy; it was verified before it got this name
    <sha256>.part  a copy on its way, as long as the shard from the start; whoever makes it holds a lock on it
    <id>.uses      the copies that a process works with, a sha256 a line; that process holds a lock on it

The kernel takes the locks of a process away when it dies, however it dies. What it leaves then has no lock, and the
next one who looks for room removes it.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from pipeline.dataset import REMAKE
from pipeline.errors import MarlinError
from pipeline.storage.atomic import finish, locked, os_error, sync_folder
from pipeline.storage.manifest import FileEntry, sha256_file
from pipeline.text import size_text

_FREE_SHARE, _FREE_BYTES = 20, 20_000_000_000
"""The disk is filled up to a twentieth of it, or 20 GB: checkpoints and others need room too."""


class WrongShard(MarlinError):
    """An object is not the shard that the dataset lists."""


class NoRoom(MarlinError):
    """The folder may hold no more, and all that is in it is in use."""


@dataclass
class _Content:
    """What is in the folder; sizes in bytes."""

    copies: dict[str, os.stat_result] = field(default_factory=dict)
    parts: list[os.stat_result] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes of all copies, of those on their way too."""
        return sum(found.st_size for found in [*self.copies.values(), *self.parts])

    @property
    def awaited(self) -> int:
        """Bytes of copies on their way that are still to be written."""
        return sum(max(0, found.st_size - found.st_blocks * 512) for found in self.parts)


class NodeCache:
    """Copies of shards by their sha256: whole and verified, or not there. Safe for threads and processes.

    A copy that was asked for or made here stays until this is closed. Copies that no process works with make room for
    new ones, the least recently used first.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        """Join the users of a folder.

        Args:
            folder: made if need be.
            limit: most bytes of all copies together; None: what the disk has free.

        Raises:
            MarlinError: the folder cannot be made or written, or lacks file locks.
        """
        self._folder = folder
        self._limit = limit
        self._mine: set[str] = set()
        self._mine_lock = Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / "lock"):
                self._uses = _new_locked(folder / f"{uuid.uuid4().hex}.uses")
        except OSError as error:
            raise os_error(folder, error) from None

    def find(self, shard: FileEntry) -> Path | None:
        """The copy of a shard, which is then kept, or None."""
        path = self._copy(shard.sha256)
        try:
            if path.stat().st_size != shard.size:
                return None
        except OSError:
            return None
        self._use(shard.sha256)
        return path

    def add(self, shard: FileEntry, pieces: Iterable[bytes], url: str) -> bool:
        """Make a copy of a shard out of its bytes, unless it is there or on its way already.

        Args:
            shard: what the bytes must be.
            pieces: the bytes in order; not touched if no copy is made.
            url: where they come from, for errors.

        Returns:
            Whether this call made the copy.

        Raises:
            NoRoom: all that is in the folder is in use.
            WrongShard: the bytes are not the shard's.
            MarlinError: the folder cannot be written, the disk is full.
        """
        try:
            part = self._begin(shard)
            if part is None:
                return False
            path = Path(part.name)
            with part:
                try:
                    _write(part, shard, pieces, url)
                    finish(part)
                    with locked(self._folder / "lock"):
                        path.replace(self._copy(shard.sha256))
                except BaseException:
                    path.unlink(missing_ok=True)  # while it is still held: nobody else can have begun one of this name
                    raise
            sync_folder(self._folder)
        except OSError as error:
            raise os_error(self._folder, error) from None
        return True

    def drop_if_damaged(self, shard: FileEntry) -> bool:
        """Remove a copy whose bytes have changed since it was made; whether there was one."""
        path = self._copy(shard.sha256)
        try:
            if sha256_file(path) == shard.sha256:
                return False
            path.unlink()
        except (OSError, MarlinError):
            return False
        return True

    def capacity(self) -> int:
        """Bytes that the folder can hold, as far as limit and disk tell now."""
        try:
            with locked(self._folder / "lock"):
                content = self._scan()
            free = self._free() - content.awaited + content.size
        except OSError as error:
            raise os_error(self._folder, error) from None
        return free if self._limit is None else min(free, self._limit)

    def close(self) -> None:
        """Give all copies free; those used here count as used just now."""
        with self._mine_lock:
            if self._uses.closed:
                return
            for sha256 in self._mine:
                _touch(self._copy(sha256))
            with contextlib.suppress(OSError):
                Path(self._uses.name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what a full disk did not take is written again, and refused again
                self._uses.close()

    def _copy(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.tar"

    def _use(self, sha256: str) -> None:
        with self._mine_lock:
            if sha256 in self._mine or self._uses.closed:
                return
            self._mine.add(sha256)
            with contextlib.suppress(OSError):  # a full disk: the copy may be evicted, and is then fetched again
                self._uses.write(f"{sha256}\n".encode())
                self._uses.flush()
        _touch(self._copy(sha256))

    def _begin(self, shard: FileEntry) -> BinaryIO | None:
        with locked(self._folder / "lock"):
            path = self._folder / f"{shard.sha256}.part"
            if self.find(shard) is not None or _is_held(path):
                return None
            self._make_room(shard.size)
            part = _new_locked(path)
            part.truncate(shard.size)  # so that others see how much room it takes
            self._use(shard.sha256)
            return part

    def _make_room(self, size: int) -> None:
        content = self._scan()
        lacking = size + content.awaited - self._free()
        if self._limit is not None:
            lacking = max(lacking, content.size + size - self._limit)
        idle = [(found.st_mtime, sha256) for sha256, found in content.copies.items() if sha256 not in content.used]
        chosen = []
        for _, sha256 in sorted(idle):
            if lacking <= 0:
                break
            chosen.append(sha256)
            lacking -= content.copies[sha256].st_size
        if lacking > 0:
            raise NoRoom(
                f"{self._folder} has no room for {size_text(size)} more: {size_text(content.size)} are in use, and "
                f"{size_text(max(0, self._free()))} of the disk may still be filled: raise data.cache_gb, free some "
                "space, or set data.cache_dir"
            )
        for sha256 in chosen:
            self._copy(sha256).unlink(missing_ok=True)

    def _scan(self) -> _Content:
        """What is in the folder; leavings of dead processes are removed. Needs the lock."""
        content = _Content()
        for entry in list(os.scandir(self._folder)):
            path, kind = Path(entry.path), entry.name.rpartition(".")[2]
            with contextlib.suppress(FileNotFoundError, PermissionError):  # others' may be closed to us
                if kind == "tar":
                    content.copies[path.stem] = entry.stat()
                elif kind in ("part", "uses") and not _is_held(path):
                    path.unlink()
                elif kind == "part":
                    content.parts.append(entry.stat())
                elif kind == "uses":
                    content.used.update(path.read_text("ascii").split())
        return content

    def _free(self) -> int:
        """Bytes of the disk that may still be filled."""
        disk = shutil.disk_usage(self._folder)
        return disk.free - min(disk.total // _FREE_SHARE, _FREE_BYTES)


def _write(part: BinaryIO, shard: FileEntry, pieces: Iterable[bytes], url: str) -> None:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        size += len(piece)
        if size > shard.size:
            break
        digest.update(piece)
        part.write(piece)
    if size != shard.size or digest.hexdigest() != shard.sha256:
        raise WrongShard(f"{url} is not the file that the dataset lists (sha256 differs): restore it, or {REMAKE}")


def _new_locked(path: Path) -> BinaryIO:
    """A new file that this process holds; the folder's lock keeps others from taking it for a dead one's before."""
    file = path.open("xb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        path.unlink()
        raise
    return file


def _is_held(path: Path) -> bool:
    """Whether a file is there and a living process holds it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        # Another user's, who lets nobody read it: better taken for alive.
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    return False


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone, or another user's: then it counts as less recently used
        os.utime(path)
