"""The bytes of shards, wherever they lie: files of this machine, or objects of a remote store."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

from pipeline.assets import cache_dir
from pipeline.config.schema import DataConfig
from pipeline.dataset import REMAKE
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import ReadStore
from pipeline.storage.atomic import os_error
from pipeline.storage.manifest import FileEntry
from pipeline.text import plural, size_text
from train.data.cache.fetcher import ShardFetcher
from train.data.cache.folder import NodeCache
from train.data.cache.ranges import RangeReader, Span

_log = logging.getLogger(__name__)

_OPEN_FILES = 128
_GB = 1_000_000_000


class ShardAccess(Protocol):
    """Reads spans of a dataset's shards. Safe for threads."""

    def announce(self, spans: Iterable[Span]) -> None:
        """Say what will be read soon. For one thread."""
        ...

    def want(self, shards: Iterable[str]) -> None:
        """Say which shards will be read later, in this order."""
        ...

    def read(self, span: Span) -> bytes:
        """The bytes of a span; fewer where the shard ends inside it.

        Raises:
            MarlinError: the shard is missing or not the one that the dataset lists, or its place cannot be read.
        """
        ...

    def recover(self, shard: str) -> bool:
        """Whether damage that was met in a shard may be gone now, so that reading again can help."""
        ...

    def close(self) -> None:
        """Stop all reading and close all files."""
        ...


class LocalShards:
    """Shards of a local store."""

    def __init__(self, store: ReadStore, shards: Mapping[str, FileEntry]) -> None:
        def path(shard: str) -> Path:
            found = store.local_path(shard)
            if found is None:
                raise MarlinError(f"{store.url}/{shard} is no local file: read it as a remote one")
            return found

        self._files = _Files(path, shards)

    def announce(self, spans: Iterable[Span]) -> None:
        """Nothing: a disk needs no notice."""

    def want(self, shards: Iterable[str]) -> None:
        """Nothing: they are here."""

    def read(self, span: Span) -> bytes:
        return self._files.read(span)

    def recover(self, shard: str) -> bool:
        return False

    def close(self) -> None:
        self._files.close()


class RemoteShards:
    """Shards of a remote store: out of the node's cache where there is a copy, else byte ranges from the store.

    What the store has as a file all the same is read from there.
    """

    def __init__(
        self,
        store: ReadStore,
        shards: Mapping[str, FileEntry],
        cache: NodeCache | None,
        *,
        fetches: int,
        connections: int,
        window: int,
    ) -> None:
        """Start reading.

        Args:
            store: where the shards are.
            shards: what the dataset lists.
            cache: where copies are made; None reads without.
            fetches: shards copied at the same time; 0 makes none, but reads what others copied.
            connections: byte ranges read at the same time.
            window: announcements that are kept.
        """
        self._store = store
        self._shards = shards
        self._cache = cache
        self._ranges = RangeReader(store, connections, window)
        self._fetcher = ShardFetcher(store, cache, fetches, self._ranges.behind) if cache and fetches else None
        self._files = _Files(self._copy, shards)

    def announce(self, spans: Iterable[Span]) -> None:
        find = cache(self._find)
        self._ranges.announce(span for span in spans if find(span.shard) is None)

    def want(self, shards: Iterable[str]) -> None:
        if self._fetcher is not None:
            for shard in shards:
                if self._store.local_path(shard) is None:
                    self._fetcher.want(self._shards[shard])

    def read(self, span: Span) -> bytes:
        try:
            return self._files.read(span)
        except FileNotFoundError:
            if self._fetcher is not None:
                self._fetcher.check(self._shards[span.shard])
            return self._ranges.read(span)

    def recover(self, shard: str) -> bool:
        if self._cache is None:
            return False
        if self._cache.drop_if_damaged(self._shards[shard]):
            _log.warning("the copy of %s on this machine was damaged and is removed: check the disk", shard)
        # Another reader may have removed it before, while it is still open here.
        self._files.close()
        return True

    def close(self) -> None:
        self._ranges.close()
        if self._fetcher is not None:
            self._fetcher.close()
        if self._cache is not None:
            self._cache.close()
        self._files.close()

    def _find(self, shard: str) -> Path | None:
        path = self._store.local_path(shard)
        if path is None and self._cache is not None:
            path = self._cache.find(self._shards[shard])
        return path

    def _copy(self, shard: str) -> Path:
        path = self._find(shard)
        if path is None:
            raise FileNotFoundError(shard)
        return path


class _Files:
    """The files read last, held open. Safe for threads."""

    def __init__(self, path: Callable[[str], Path], shards: Mapping[str, FileEntry]) -> None:
        self._open = lru_cache(_OPEN_FILES)(lambda shard: _File(path(shard), shards[shard].size))

    def read(self, span: Span) -> bytes:
        """The bytes of a span.

        Raises:
            FileNotFoundError: as `path` gives it.
            MarlinError: the file has not the size it should have, or cannot be read.
        """
        return self._open(span.shard).read(span)

    def close(self) -> None:
        """Close those that no thread reads at the moment; these close when it is done."""
        self._open.cache_clear()


class _File:
    """An open file, closed with its last reference: whoever still reads it may."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise os_error(path, error) from None
        if (found := os.fstat(self._descriptor).st_size) != size:
            raise MarlinError(f"{path} has {found} bytes, the dataset lists {size}: restore it, or {REMAKE}")

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, span: Span) -> bytes:
        # pread and not mmap: a failing disk is an error here, and would be a signal there.
        try:
            return os.pread(self._descriptor, span.length, span.offset)
        except OSError as error:
            raise os_error(self._path, error) from None


def open_access(
    data: DataConfig, store: ReadStore, shards: Mapping[str, FileEntry], *, share: Set[str], window: int, tells: bool
) -> ShardAccess:
    """Access to the shards of a dataset.

    Args:
        data: the configuration.
        store: where the dataset lies.
        shards: what it lists.
        share: the shards that this machine reads again and again; none where it reads once.
        window: announcements that are kept.
        tells: whether to warn if the cache cannot hold `share`.

    Raises:
        UsageError: `data.cache_gb` cannot hold a single shard.
        MarlinError: the cache's folder cannot be used.
    """
    # One of each folder tells for all: a dataset lies here or elsewhere, whole.
    examples = {_folder(shard): shard for shard in shards}
    remote = {folder for folder, shard in examples.items() if store.local_path(shard) is None}
    if not remote:
        return LocalShards(store, shards)
    sizes = {shard: shards[shard].size for shard in share if _folder(shard) in remote}
    cache = _open_cache(data, sizes, store.url if tells else "")
    fetches = data.fetches if share and data.fetch_ahead else 0
    return RemoteShards(store, shards, cache, fetches=fetches, connections=data.connections, window=window)


def _folder(shard: str) -> str:
    return shard.rpartition("/")[0]


def _open_cache(data: DataConfig, sizes: Mapping[str, int], url: str) -> NodeCache | None:
    if data.cache_gb == 0:
        return None
    limit = None if data.cache_gb is None else round(data.cache_gb * _GB)
    largest, needed = max(sizes.values(), default=0), sum(sizes.values())
    if limit is not None and limit < largest:
        raise UsageError(
            f"data.cache_gb={data.cache_gb:g} holds none of the larger shards, of {size_text(largest)}: set at least "
            f"{largest / _GB + 0.01:.2f}, or 0 to read without a cache"
        )
    cache = NodeCache(Path(data.cache_dir) if data.cache_dir else cache_dir() / "shards", limit)
    if url and needed > (capacity := cache.capacity()):
        _log.warning(
            "this node reads %s of %s, %s, and its cache holds %s: the rest is read from there anew in every epoch, "
            "clip by clip; to avoid that set data.cache_gb=%.0f, or data.cache_dir to a larger disk, or use more nodes",
            *(plural(len(sizes), "shard"), url, size_text(needed), size_text(capacity), needed / _GB + 1),
        )
    return cache
