"""A generator that runs ahead of its reader, in a thread of its own."""

from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_CLOSING_S = 5.0


class _End(Exception):
    """The generator has no more items."""


class Background(Iterator[T], Generic[T]):
    """Items of a generator, made before they are asked for; its errors are raised where its items would come."""

    def __init__(self, items: Generator[T, None, None], depth: int, stop: Callable[[], None] | None = None) -> None:
        """Nothing runs before the first item is asked for.

        Args:
            items: run, and closed at the end, in the thread.
            depth: items made ahead.
            stop: wakes the generator up from whatever it waits for; called when this is closed.
                None: it never waits long.
        """
        self._items = items
        self._stop = stop
        self._made: SimpleQueue[T | Exception] = SimpleQueue()
        self._room = Semaphore(depth)
        self._closed = False
        self._over: Exception | None = None
        # A daemon: a generator that hangs must not hold up the end of the process.
        self._thread = Thread(target=self._run, name="batches", daemon=True)

    def __next__(self) -> T:
        if self._over is None and not self._closed:
            if self._thread.ident is None:
                self._thread.start()
            item = self._made.get()
            if not isinstance(item, Exception):
                self._room.release()
                return item
            self._over = item
        if self._over is None or self._closed or isinstance(self._over, _End):
            raise StopIteration
        raise self._over

    def close(self) -> None:
        """End the thread; one that hangs is left behind."""
        self._closed = True
        try:
            if self._stop is not None:
                self._stop()
        finally:
            self._room.release()
            if self._thread.ident is None:
                self._items.close()
            else:
                self._thread.join(_CLOSING_S)

    def _run(self) -> None:
        last: Exception = _End()
        try:
            while self._room.acquire() and not self._closed:
                self._made.put(next(self._items))
        except StopIteration:
            pass
        except Exception as error:
            last = error
        finally:
            self._made.put(last)  # also when closed: somebody may wait
            self._items.close()
