"""Byte ranges of remote objects, asked for ahead of use so that their latency is not waited for."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.storage import ReadStore
from pipeline.workers import Workers

GAP_BYTES = 128 << 10
"""Ranges nearer than this are read as one: the bytes between them cost less than a request."""


class Span(NamedTuple):
    """Some bytes of a shard."""

    shard: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length

    def holds(self, other: "Span") -> bool:
        """Whether the other lies within."""
        return self.shard == other.shard and self.offset <= other.offset and other.end <= self.end


def joined(spans: Iterable[Span], gap: int = GAP_BYTES) -> Iterator[Span]:
    """The fewest spans that hold all of these and bridge no more than `gap` bytes at a time, sorted."""
    current: Span | None = None
    for span in sorted(spans):
        if current is not None and span.shard == current.shard and span.offset <= current.end + gap:
            current = current._replace(length=max(current.end, span.end) - current.offset)
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current


@dataclass(frozen=True)
class _Block:
    span: Span
    data: "Future[bytes]"


class RangeReader:
    """Reads ranges of a store's objects, several at a time and ahead of use. Safe for threads."""

    def __init__(self, store: ReadStore, connections: int, window: int) -> None:
        """Start the threads.

        Args:
            store: where the objects are.
            connections: requests at the same time.
            window: announcements whose bytes are kept; older ones are forgotten.
        """
        self._store = store
        self._workers = Workers(connections, "ranges")
        self._groups: deque[Sequence[_Block]] = deque()
        self._window = window
        self._blocks: dict[str, tuple[_Block, ...]] = defaultdict(tuple)

    def announce(self, spans: Iterable[Span]) -> None:
        """Begin to read what will be asked for soon. Not for several threads at a time."""
        self._groups.append([_Block(span, self._submit(span)) for span in joined(spans)])
        for block in self._groups[-1]:
            self._blocks[block.span.shard] += (block,)
        if len(self._groups) > self._window:
            for block in self._groups.popleft():
                self._forget(block)

    def read(self, span: Span) -> bytes:
        """The bytes of a range, as announced or at once.

        Raises:
            MarlinError: as the store gives it.
            Closed: the reader was closed meanwhile.
        """
        for block in self._blocks.get(span.shard, ()):
            if block.span.holds(span):
                start = span.offset - block.span.offset
                return block.data.result()[start : start + span.length]
        return self._submit(span).result()

    def behind(self) -> bool:
        """Whether ranges wait for a free connection."""
        return self._workers.behind()

    def close(self) -> None:
        """Stop reading; whoever waits is told so."""
        self._workers.close()

    def _forget(self, block: _Block) -> None:
        rest = tuple(other for other in self._blocks[block.span.shard] if other is not block)
        if rest:
            self._blocks[block.span.shard] = rest
        else:
            del self._blocks[block.span.shard]

    def _submit(self, span: Span) -> "Future[bytes]":
        return self._workers.submit(lambda: self._store.read_range(*span))
