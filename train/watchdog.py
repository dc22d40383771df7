"""A training that no longer moves: every rank prints where it is, and the run ends with the name of the one behind."""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from torch.distributed import distributed_c10d

from train.preflight import place, ranks_text
from train.world import World

_ANSWER_SECONDS = 10.0
_STDERR = 2  # the descriptor: what else happened to `sys.stderr` does not matter
_COLLECTIVES = distributed_c10d.__file__
_OURS = str(Path(__file__).resolve().parent)


@dataclass(frozen=True)
class Place:
    """Where a rank was when nothing moved any more."""

    host: str
    done: int
    where: str
    waits: bool  # in a collective call, for the others


class Watchdog:
    """Ends the process when no step is finished for `seconds`. Use as a context manager.

    Args:
        world: this rank.
        seconds: without a call of `beat`, after which the run hangs.
        report: told the reason before the process ends.
    """

    def __init__(self, world: World, seconds: float, report: Callable[[str], None]) -> None:
        self._world = world
        self._seconds = seconds
        # Where the ranks met; it answers while collective calls are stuck.
        self._store = distributed_c10d._get_default_store() if world.size > 1 else None
        self._report = report
        self._main = threading.get_ident()
        self._done = 0
        self._beaten = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        self.beat(self._done)
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def beat(self, done: int) -> None:
        """A step is finished, or a checkpoint saved."""
        self._done, self._beaten = done, time.monotonic()
        # Needs no Python to run: for code that never lets go of the interpreter, which keeps the thread from its work.
        faulthandler.dump_traceback_later(self._seconds + 3 * _ANSWER_SECONDS, exit=True, file=_STDERR)

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() - self._beaten > self._seconds:
                self._end()

    def _end(self) -> None:
        mine = self._place()
        print(f"rank {self._world.rank} on {mine.host}: no step for {self._seconds} s", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        try:
            self._report(verdict(self._ask(mine), self._world.size, self._seconds))
            # Not before all have spoken: the launcher ends the others when the first one leaves.
            self._gather("told", "")
        except Exception as error:  # storage is gone as well: there is nobody left to tell
            print(f"rank {self._world.rank}: its end can't be told: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    def _ask(self, mine: Place) -> dict[int, Place]:
        """Where all ranks are that answer."""
        return {
            rank: Place(**json.loads(text)) for rank, text in self._gather("place", json.dumps(asdict(mine))).items()
        }

    def _gather(self, topic: str, word: str) -> dict[int, str]:
        """Leave a word for the others, and read theirs as far as they come in time."""
        words = {self._world.rank: word}
        if self._store is None:
            return words
        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            self._store.set(f"hang/{topic}/{self._world.rank}", word)
            while len(words) < self._world.size and time.monotonic() < deadline:
                for rank in range(self._world.size):
                    if rank not in words and self._store.check([f"hang/{topic}/{rank}"]):
                        words[rank] = self._store.get(f"hang/{topic}/{rank}").decode()
                time.sleep(0.1)
        except RuntimeError:
            pass  # the machine of rank 0, which keeps the words, is gone: those that came must do
        return words

    def _place(self) -> Place:
        frames = sys._current_frames()
        waits = any(_in_collective(frame) for frame in frames.values())
        return Place(socket.gethostname(), self._done, _innermost(frames[self._main]), waits)


def verdict(places: dict[int, Place], size: int, seconds: float) -> str:
    """Which rank the others wait for, in words."""
    start = f"no step was finished for {seconds:g} s (train.hang_timeout)"
    end = "the stacks of all ranks are in the log; the next start continues"
    hosts = {rank: found.host for rank, found in places.items()}
    silent = [rank for rank in range(size) if rank not in places]
    if silent:
        return f"{start}: {ranks_text(silent)} of {size} did not answer at all; {end}"
    behind = _behind(places)
    if not behind:
        return f"{start}: all ranks are in step {places[0].done + 1}, and none is behind: at {places[0].where}; {end}"
    who = ", ".join(
        f"{place(rank, hosts)} in step {places[rank].done + 1} at {places[rank].where}" for rank in behind[:4]
    )
    return f"{start}: the others wait for {who}; {end}" if size > 1 else f"{start}: at {places[0].where}; {end}"


def _behind(places: dict[int, Place]) -> Sequence[int]:
    """The ranks that have done least; among equals, those that do not wait for others."""
    least = min(found.done for found in places.values())
    if any(found.done > least for found in places.values()):
        return [rank for rank, found in sorted(places.items()) if found.done == least]
    busy = [rank for rank, found in sorted(places.items()) if not found.waits]
    return busy if len(busy) < len(places) or len(places) == 1 else []


def _in_collective(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _COLLECTIVES:
            return True
        frame = frame.f_back
    return False


def _innermost(frame: FrameType | None) -> str:
    """The line of the training itself that is running."""
    found = frame
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            found = frame
            break
        frame = frame.f_back
    if found is None:
        return "an unknown place"
    return f"{Path(found.f_code.co_filename).name}:{found.f_lineno} ({found.f_code.co_name})"
