"""WebDataset shards: plain tar files whose bytes depend on nothing but the samples."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from pipeline.dataset import Damaged
from pipeline.storage import Store
from pipeline.storage.manifest import FileEntry, sha256_file

SHARD_BYTES = 256 << 20
_HEADER_BYTES = 512

Parts = dict[str, tuple[int, int]]
"""Offset and length of each part's payload in its shard."""


class ShardWriter:
    """Writes samples into local tar files of bounded size, one after the other."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._paths: list[Path] = []
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, parts: Mapping[str, bytes]) -> tuple[int, Parts]:
        """Appends a sample; returns the number of its shard and where its parts lie in it."""
        if self._tar is not None and self._tar.offset >= self._limit:
            self.close()
        if self._tar is None:
            self._paths.append(self._folder / f"{len(self._paths):02d}.tar")
            self._tar = tarfile.open(self._paths[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        return len(self._paths) - 1, {name: _append(self._tar, f"{key}.{name}", data) for name, data in parts.items()}

    def close(self) -> list[Path]:
        """Finishes the last shard; returns all shards in order."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
        return self._paths


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    offset = tar.offset + _HEADER_BYTES
    tar.addfile(info, io.BytesIO(data))
    return offset, len(data)


def checked_shard(store: Store, entry: FileEntry, copy: Path) -> Path:
    """A committed shard as a local file: itself where the store is local, else fetched to `copy`.

    Raises:
        NotFound: it is gone.
        Damaged: it is not what was committed.
    """
    path = store.local_path(entry.name)
    if path is None:
        store.fetch(entry.name, copy)
        path = copy
    if path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
        raise Damaged(f"{store.url}/{entry.name} is not what was committed (sha256 differs)")
    return path


def shard_entries(unit: str, paths: list[Path]) -> list[FileEntry]:
    """Names, sizes and hashes of a unit's shards in the dataset.

    The attempt in the name is a hash of all their bytes: attempts with the same result write the same objects, so
    what a killed attempt left is overwritten by the next one, and a different result never overwrites a committed one.
    """
    hashes = [sha256_file(path) for path in paths]
    attempt = hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    return [
        FileEntry(f"shards/{unit}-{attempt}-{number:02d}.tar", path.stat().st_size, sha)
        for number, (path, sha) in enumerate(zip(paths, hashes, strict=True))
    ]


def gaps(file: BinaryIO, samples: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[str]:
    """Where a shard and the index of its samples differ, a line each: members that only one of them knows.

    Args:
        file: the shard.
        samples: offset and length of each part by the names of sample and part.
    """
    places = sorted((*place, f"{key}.{name}") for key, parts in samples.items() for name, place in parts.items())
    at, problems = 0, []
    for offset, length, name in places:
        if offset != at + _HEADER_BYTES:
            return [f"holds something at byte {at} that the index does not name"]
        file.seek(at)
        header = file.read(_HEADER_BYTES)
        if header[:100].rstrip(b"\0") != name.encode() or header[124:135] != b"%011o" % length:
            problems.append(f"has no {name} of {length} bytes at byte {at}")
        at = offset + -(-length // _HEADER_BYTES) * _HEADER_BYTES
    file.seek(at)
    if any(file.read()):
        problems.append(f"holds something at byte {at} that the index does not name")
    return problems
