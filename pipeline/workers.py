"""Threads in the background that never hold up the end of the process."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

Item = TypeVar("Item")
T = TypeVar("T")

_CLOSING_S = 2.0


class Closed(Exception):  # not an error: whoever waits is no longer wanted
    """The workers were closed before they could do this."""


class Workers:
    """A pool of daemon threads, first come first served.

    An executor of the standard library waits for its threads when the process ends, however long the network lets them
    hang; these are left behind.
    """

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open: set[Future[Any]] = set()
        self._lock = Lock()
        self._closed = False
        self._threads = [Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done; the future raises `Closed` if that comes first."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(Closed())
                return future
            self._open.add(future)
        self._tasks.put(lambda: self._do(work, future))
        return future

    def behind(self) -> bool:
        """Whether something waits for a free thread."""
        return not self._tasks.empty()

    def close(self) -> None:
        """Drop what is waiting and let go of what is going on; a thread that hangs in the network is left behind."""
        with self._lock:
            self._closed = True
            dropped, self._open = self._open, set()
        for future in dropped:
            with suppress(InvalidStateError):
                future.set_exception(Closed())
        for _ in self._threads:
            self._tasks.put(None)
        end = monotonic() + _CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, end - monotonic()))

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _do(self, work: Callable[[], T], future: Future[T]) -> None:
        if future.done():
            return
        try:
            result = work()
        except BaseException as error:
            self._settle(future, partial(future.set_exception, error))
        else:
            self._settle(future, partial(future.set_result, result))

    def _settle(self, future: Future[Any], outcome: Callable[[], None]) -> None:
        with self._lock:
            self._open.discard(future)
        with suppress(InvalidStateError):  # closed meanwhile
            outcome()


def work_ahead(
    pool: Workers, work: Callable[[Item], T], groups: Iterable[Sequence[Item]], depth: int
) -> Iterator[list[T]]:
    """Groups of results in order, while the pool works on the items of up to `depth` groups more."""
    waiting: deque[list[Future[T]]] = deque()
    for group in groups:
        waiting.append([pool.submit(partial(work, item)) for item in group])
        if len(waiting) > depth:
            yield [future.result() for future in waiting.popleft()]
    while waiting:
        yield [future.result() for future in waiting.popleft()]
