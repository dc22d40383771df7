"""Objects as files of a local or shared file system."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MarlinError
from pipeline.storage.atomic import COPY_BYTES, finish, locked, os_error, sync_folder, temporary_file, whole_file
from pipeline.storage.base import (
    TEMP_PREFIX,
    AlreadyExists,
    Conflict,
    NotFound,
    ObjectInfo,
    Versioned,
    check_key,
    check_prefix,
    is_reserved,
)

_LOCK_NAME = f"{TEMP_PREFIX}lock"


@dataclass(frozen=True)
class LocalStore:
    """A `Store` whose keys are paths below `root`.

    The version of an object is the sha256 of its bytes. `replace` and `delete` exclude each other by a lock file in
    the object's folder; `write` does not take it, so a key is either replaced or written, not both.
    """

    root: Path

    @property
    def url(self) -> str:
        return str(self.root)

    def at(self, sub: str) -> "LocalStore":
        return LocalStore(self.root / check_key(sub.strip("/")))

    def read(self, key: str) -> bytes:
        path = self._path(key)
        with _reading(path):
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        path = self._path(key)
        with _reading(path), path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise MarlinError(f"{path}: ends before byte {start + length}: the file is damaged, write it again")
        return data

    def read_versioned(self, key: str) -> Versioned:
        data = self.read(key)
        return Versioned(data, _version(data))

    def stream(self, key: str) -> Iterator[bytes]:
        path = self._path(key)
        with _reading(path), path.open("rb") as file:
            while piece := file.read(COPY_BYTES):
                yield piece

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _writing(path), whole_file(path) as file:
            file.write(data)

    def write_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        with _reading(path):
            source = path.open("rb")
        with source, _writing(target), whole_file(target) as file:
            shutil.copyfileobj(source, file, COPY_BYTES)

    def fetch(self, key: str, path: Path) -> None:
        source_path = self._path(key)
        with _reading(source_path):
            source = source_path.open("rb")
        with source, _writing(path), whole_file(path) as file:
            shutil.copyfileobj(source, file, COPY_BYTES)

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _writing(path), temporary_file(path) as (temporary, file):
            file.write(data)
            finish(file)
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise AlreadyExists(f"{path} exists already and is never overwritten: another run made it") from None
            sync_folder(path.parent)

    def replace(self, key: str, data: bytes, version: str) -> str:
        path = self._path(key)
        conflict = Conflict(f"{path} was changed or removed by another run meanwhile: read it again and repeat")
        if not self.exists(key):
            raise conflict
        with _writing(path), locked(path.parent / _LOCK_NAME):
            if not path.is_file() or _version(path.read_bytes()) != version:
                raise conflict
            with whole_file(path) as file:
                file.write(data)
        return _version(data)

    def size(self, key: str) -> int:
        path = self._existing(key)
        with _reading(path):
            return path.stat().st_size

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with _reading(path):
            return path.is_file()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        # Only the folder that the prefix names can hold matches; the rest of the tree is not walked.
        top = self.root / prefix.rpartition("/")[0]
        with _reading(top):
            found = sorted(self._walk(top, prefix), key=lambda info: info.key)
        return iter(found)

    def age(self, key: str) -> float:
        path = self._existing(key)
        # A file system that machines share has a clock of its own: that of a fresh file.
        with _writing(path), temporary_file(path) as (_, file):
            now = os.fstat(file.fileno()).st_mtime
            with _reading(path):
                return max(0.0, now - path.stat().st_mtime)

    def delete(self, key: str) -> None:
        path = self._path(key)
        if not self.exists(key):
            return
        with _writing(path), locked(path.parent / _LOCK_NAME):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def local_path(self, key: str) -> Path | None:
        return self._existing(key)

    def remove_unfinished(self, prefix: str) -> None:
        top = self.root / check_prefix(prefix).rpartition("/")[0]
        with _writing(top):
            for path in top.rglob(f"{TEMP_PREFIX}*"):
                if path.name != _LOCK_NAME and path.relative_to(self.root).as_posix().startswith(prefix):
                    path.unlink(missing_ok=True)

    def supports_conditional(self) -> bool:
        return True

    def check(self) -> None:
        with _writing(self.root), temporary_file(self.root / "probe") as (_, file):
            file.write(b"probe")
            finish(file)
        with _writing(self.root):
            next(self.root.iterdir(), None)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not self.exists(key):
            raise _not_found(path)
        return path

    def _walk(self, top: Path, prefix: str) -> Iterator[ObjectInfo]:
        for folder, _, names in os.walk(top, onerror=_raise_unless_absent):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix) and not is_reserved(key):
                    try:
                        yield ObjectInfo(key, path.stat().st_size)
                    except FileNotFoundError:
                        continue  # deleted since the folder was read, or a dangling link


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise _not_found(path) from None
    except OSError as error:
        raise os_error(path, error) from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_error(path, error) from None


def _not_found(path: Path) -> NotFound:
    return NotFound(f"{path}: no such file: check the path, or run the stage that writes it")


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
