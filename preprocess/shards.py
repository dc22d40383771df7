"""WebDataset shards: plain tar files whose bytes depend on nothing but the samples."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

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
