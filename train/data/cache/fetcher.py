"""Whole shards brought to this machine in the background, in the order in which they will be needed."""

import logging
from collections.abc import Callable, Iterator
from threading import Event, Lock
from time import monotonic

from pipeline.errors import MarlinError
from pipeline.storage import ReadStore
from pipeline.storage.manifest import FileEntry
from pipeline.workers import Closed, Workers
from train.data.cache.folder import NodeCache, NoRoom, WrongShard

_log = logging.getLogger(__name__)

_REST_S = 30.0
"""How long nothing is fetched after the folder was full or the network failed: readers do without copies meanwhile."""
_WAY_S = 0.2
"""The longest wait for requests that go first, after each piece: on a slow network, copies must come to an end too."""


class ShardFetcher:
    """Fills a node cache from a store. Never waited for: where a copy is missing, bytes are read from the store."""

    def __init__(self, store: ReadStore, cache: NodeCache, threads: int, busy: Callable[[], bool]) -> None:
        """Start the threads.

        Args:
            store: where the shards are.
            cache: where the copies go.
            threads: each fetches one shard at a time.
            busy: whether bytes that are needed soon wait for their turn; they go first.
        """
        self._store = store
        self._cache = cache
        self._busy = busy
        self._workers = Workers(threads, "shards")
        self._stopped = Event()
        self._lock = Lock()
        self._asked: set[str] = set()
        self._wrong: dict[str, WrongShard] = {}
        self._rests_until = 0.0
        self._told: set[type[MarlinError]] = set()

    def want(self, shard: FileEntry) -> None:
        """Have a shard fetched, unless it is here or already asked for."""
        if self._cache.find(shard) is not None:
            return
        with self._lock:
            known = shard.sha256 in self._asked or shard.sha256 in self._wrong
            if known or monotonic() < self._rests_until:
                return
            self._asked.add(shard.sha256)
        self._workers.submit(lambda: self._bring(shard))

    def check(self, shard: FileEntry) -> None:
        """Raise what was found out about a shard.

        Raises:
            WrongShard: what lies in the store is another file than the dataset lists.
        """
        if shard.sha256 in self._wrong:
            raise self._wrong[shard.sha256]

    def close(self) -> None:
        """Stop fetching; what is half here is removed."""
        self._stopped.set()
        self._workers.close()

    def _bring(self, shard: FileEntry) -> None:
        try:
            if monotonic() >= self._rests_until:
                self._cache.add(shard, self._pieces(shard), f"{self._store.url}/{shard.name}")
        except WrongShard as error:
            self._wrong[shard.sha256] = error
        except MarlinError as error:
            # If it is for good, the reader that needs these bytes meets it too, and says so.
            self._rest(error)
        except Closed:
            raise
        except Exception as error:  # nobody looks at the future: without a line it would never be known
            self._rest(MarlinError(f"{type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._asked.discard(shard.sha256)

    def _pieces(self, shard: FileEntry) -> Iterator[bytes]:
        for piece in self._store.stream(shard.name):
            if self._stopped.is_set():
                raise Closed
            yield piece
            self._give_way()

    def _give_way(self) -> None:
        end = monotonic() + _WAY_S
        while self._busy() and monotonic() < end and not self._stopped.wait(_WAY_S / 20):
            pass

    def _rest(self, error: MarlinError) -> None:
        self._rests_until = monotonic() + _REST_S
        kind = NoRoom if isinstance(error, NoRoom) else MarlinError
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("shards are read from %s without a copy: %s", self._store.url, error)
