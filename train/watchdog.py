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
    """Where a rank was when nothing moved any more; ``done`` is -1 while the run starts."""

    host: str
    done: int
    where: str
    waits: bool  # in a collective call, for the others


class Watchdog:
    """Ends the process when nothing is finished for `seconds`. Use as a context manager.

    Args:
        world: this rank.
        seconds: without a call of `beat`, after which the run hangs.
        report: told the reason before the process ends.
        what: what did not happen in that time, and the setting that says how long to wait.
    """

    def __init__(
        self,
        world: World,
        seconds: float,
        report: Callable[[str], None],
        what: str = "no step was finished for {} s (train.hang_timeout)",
    ) -> None:
        self._world = world
        self._seconds = seconds
        # A connection of its own: one that waits in a collective call takes no other question.
        self._store = world.store.clone() if world.store and world.size > 1 else None  # type: ignore[attr-defined]
        self._report = report
        self._what = what.format(f"{seconds:g}")
        self._main = threading.get_ident()
        self._done = -1
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

    def beat(self, done: int = -1) -> None:
        """So many steps are done, or a part of the start, and what comes next begins."""
        self._done, self._beaten = done, time.monotonic()
        # Needs no Python to run: for code that never lets go of the interpreter, which keeps the thread from its work.
        faulthandler.dump_traceback_later(self._seconds + 3 * _ANSWER_SECONDS, exit=True, file=_STDERR)

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() - self._beaten > self._seconds:
                self._end()

    def _end(self) -> None:
        mine = self._place()
        print(f"rank {self._world.rank} on {mine.host}: {self._what}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        try:
            self._report(verdict(self._ask(mine), self._world.size, self._what))
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


def verdict(places: dict[int, Place], size: int, start: str) -> str:
    """Which rank the others wait for, in words after `start`."""
    end = "the stacks of all ranks are in the log; the next start continues"
    hosts = {rank: found.host for rank, found in places.items()}
    silent = [rank for rank in range(size) if rank not in places]
    if silent:
        return f"{start}: {ranks_text(silent)} of {size} did not answer at all; {end}"
    behind = _behind(places)
    if not behind:
        return f"{start}: all ranks are in {_part(places[0].done)}, and none is behind: at {places[0].where}; {end}"
    who = ", ".join(
        f"{place(rank, hosts)} in {_part(places[rank].done)} at {places[rank].where}" for rank in behind[:4]
    )
    return f"{start}: the others wait for {who}; {end}" if size > 1 else f"{start}: at {places[0].where}; {end}"


def _part(done: int) -> str:
    """What comes after so many steps."""
    return "the start" if done < 0 else f"step {done + 1}"


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
